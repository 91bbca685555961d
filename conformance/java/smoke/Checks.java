package smoke;

import java.util.Arrays;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;

/**
 * The frame of the Java smoke: one printed line per check, which {@code cargo xtask test} counts.
 *
 * <pre>ok NAME / FAIL NAME: why / skip NAME: reason</pre>
 *
 * It deliberately knows no Kafka client. A check that fails does not stop those after it.
 */
final class Checks {
    interface Check {
        void run() throws Exception;
    }

    /** Thrown by a check that has nothing to check here; the message is the reason. */
    static final class Skip extends RuntimeException {
        Skip(String reason) {
            super(reason);
        }
    }

    private static final String RUN = UUID.randomUUID().toString().substring(0, 8);
    /** Only checks with this in their name. */
    private static final String ONLY = System.getenv().getOrDefault("ONCELOG_SMOKE_ONLY", "");
    int failed = 0;

    /** A topic or group name that no earlier run has used. */
    static String name(String what) {
        return "smoke-java-" + RUN + "-" + what;
    }

    void run(String name, Check check) {
        if (!name.contains(ONLY)) {
            return;
        }
        long started = System.nanoTime();
        try {
            check.run();
            System.out.printf("ok %s (%.1f s)%n", name, (System.nanoTime() - started) / 1e9);
        } catch (Skip skip) {
            System.out.printf("skip %s: %s%n", name, skip.getMessage().replaceAll("\\s+", " "));
        } catch (Throwable error) {
            failed += 1;
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            StackTraceElement at = Arrays.stream(error.getStackTrace())
                .filter(frame -> frame.getClassName().startsWith("smoke.")
                    && !frame.getClassName().startsWith("smoke.Checks"))
                .findFirst().orElse(null);
            String why = cause.toString().replaceAll("\\s+", " ");
            System.out.printf("FAIL %s: %s (at %s)%n", name, why, at);
        }
    }

    static void equal(Object got, Object want, String what) {
        if (!Objects.deepEquals(got, want)) {
            throw new AssertionError(what + ": got " + shorten(got) + ", want " + shorten(want));
        }
    }

    static void isTrue(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    /** Polls {@code condition} for up to 30 s. */
    static void waitFor(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + 30_000_000_000L;
        while (!condition.call()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("not within 30 s: " + what);
            }
            Thread.sleep(50);
        }
    }

    /** Runs {@code call}, which must fail with {@code kind} (itself, or as its cause). */
    static void refused(String what, Class<? extends Throwable> kind, Callable<?> call) {
        try {
            call.call();
        } catch (Throwable error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            isTrue(kind.isInstance(cause), what + ": got " + cause + ", want " + kind.getSimpleName());
            return;
        }
        throw new AssertionError("accepted: " + what);
    }

    private static String shorten(Object value) {
        String text = value instanceof byte[] bytes ? Arrays.toString(bytes) : String.valueOf(value);
        return text.length() <= 300 ? text : text.substring(0, 300) + "...";
    }
}
