package smoke;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** One run of one of Kafka's tools as a process of its own: what it printed, and how it ended. */
record Tool(String name, int exit, List<String> lines) {
    private static final long LIMIT_S = 120;

    /** Runs the class {@code main} with {@code arguments} and nothing on its standard input. */
    static Tool run(String main, String... arguments) throws Exception {
        return typing("", main, arguments);
    }

    /** The same, with {@code input} on its standard input. */
    static Tool typing(String input, String main, String... arguments) throws Exception {
        File in = file(input);
        File out = file("");
        try {
            Process process = start(in, out, main, arguments);
            if (!process.waitFor(LIMIT_S, TimeUnit.SECONDS)) {
                process.destroyForcibly().waitFor();
                throw new AssertionError(main + " did not end within " + LIMIT_S + " s; it said: "
                    + Files.readString(out.toPath()));
            }
            // ISO-8859-1 takes any byte; what is compared here is ASCII.
            var lines = Files.readAllLines(out.toPath(), StandardCharsets.ISO_8859_1);
            return new Tool(main.substring(main.lastIndexOf('.') + 1), process.exitValue(), lines);
        } finally {
            Files.delete(in.toPath());
            Files.delete(out.toPath());
        }
    }

    /** A file that goes away with the tests, for a tool that wants its input in one. */
    static File file(String text) throws IOException {
        Path path = Files.createTempFile("smoke-tool", ".txt");
        path.toFile().deleteOnExit();
        return Files.writeString(path, text).toFile();
    }

    private static Process start(File in, File out, String main, String... arguments)
        throws IOException {
        List<String> command = new ArrayList<>(List.of(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            // Most of a tool's time is the start of its virtual machine.
            "-Xmx128M", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto",
            "-Dlog.level=ERROR",
            "-Dlog4j2.configurationFile=" + System.getProperty("log4j2.configurationFile"),
            "-cp", System.getProperty("java.class.path"), main));
        command.addAll(List.of(arguments));
        return new ProcessBuilder(command)
            .redirectInput(in).redirectErrorStream(true).redirectOutput(out).start();
    }

    /** Fails unless it ended with 0. */
    Tool ok() {
        Checks.isTrue(exit == 0, name + " ended with " + exit + ": " + said());
        return this;
    }

    /** Fails unless it ended with an error that says {@code why}. */
    void refused(String why) {
        Checks.isTrue(exit != 0, name + " ended with 0: " + said());
        says(why);
    }

    /** Fails unless a line has each of {@code parts} in it, in this order. */
    Tool says(String... parts) {
        Checks.isTrue(count(parts) > 0, name + " does not say " + List.of(parts) + ": " + said());
        return this;
    }

    Tool saysNot(String... parts) {
        Checks.isTrue(count(parts) == 0, name + " says " + List.of(parts) + ": " + said());
        return this;
    }

    /** How many lines have each of {@code parts} in them, in this order. */
    long count(String... parts) {
        return lines.stream().filter(line -> has(line, parts)).count();
    }

    private static boolean has(String line, String... parts) {
        int from = 0;
        for (String part : parts) {
            int at = line.indexOf(part, from);
            if (at < 0) {
                return false;
            }
            from = at + part.length();
        }
        return true;
    }

    private String said() {
        String all = String.join(" | ", lines);
        return all.length() <= 600 ? all : all.substring(0, 600) + "...";
    }
}
