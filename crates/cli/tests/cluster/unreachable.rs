//! What needs no cluster: these run always.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oncelog"))
        .args(args)
        .output()
        .unwrap()
}

fn check(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
    for words in words {
        assert!(err.contains(words), "{args:?}: no {words:?} in {err}");
    }
}

/// An address where nothing listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn nobody_listens() {
    let nobody = nobody();
    let started = Instant::now();
    for command in [
        &["topic", "list"][..],
        &["group", "describe", "g"],
        &["config", "describe", "broker", "1"],
        &["cluster", "info"],
        &["produce", "t"],
        &["consume", "t"],
    ] {
        let args = [command, &["-b", &nobody]].concat();
        check(
            &args,
            3,
            &[&nobody, "connection refused", "next:", "-b HOST:PORT"],
        );
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    check(
        &["topic", "list", "-b", "no-such-host.invalid"],
        3,
        &["no-such-host.invalid:9092"],
    );
}

#[test]
fn what_cannot_be_reached_is_not_healthy() {
    let nobody = nobody();
    check(
        &["cluster", "health", "-b", &nobody],
        10,
        &["not healthy", "connection refused"],
    );
    let started = Instant::now();
    let wait = [
        "cluster",
        "health",
        "--exit-when-healthy",
        "--timeout",
        "1s",
        "-b",
        &nobody,
    ];
    check(&wait, 10, &["not healthy"]);
    assert!(started.elapsed() >= Duration::from_millis(500));
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Answers every connection with `answer` once something was sent, and holds it open.
fn impostor(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
            open.push(stream);
        }
    });
    address
}

#[test]
fn it_is_not_kafka_that_answers() {
    // The first four bytes of an HTTP answer are a length of over a gigabyte.
    let http = impostor(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    check(
        &["topic", "list", "-b", &http],
        3,
        &[&http, "is not Kafka's", "next:"],
    );
    // A length of zero, and an answer to another request.
    check(
        &["topic", "list", "-b", &impostor(&[0; 4])],
        1,
        &["unreadable"],
    );
    let other = impostor(&[0, 0, 0, 6, 0, 0, 0, 99, 0, 0]);
    check(&["topic", "list", "-b", &other], 1, &["another request"]);
    // A count that claims two thousand million APIs in an answer of a few bytes.
    let huge = impostor(&[0, 0, 0, 11, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x07]);
    check(&["topic", "list", "-b", &huge], 1, &["unreadable"]);
    let silent = impostor(b"");
    let started = Instant::now();
    check(
        &[
            "topic",
            "list",
            "-b",
            &silent,
            "-X",
            "socket.timeout.ms=300",
        ],
        3,
        &["no answer in time"],
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_command_line_is_checked_first() {
    check(
        &["topic", "list", "-X", "linger.mss=5"],
        2,
        &["linger.mss", "No such configuration"],
    );
    check(&["topic", "list", "-X", "nonsense"], 2, &["KEY=VALUE"]);
    check(
        &["topic", "list", "-X", "security.protocol=sasl_plaintext"],
        2,
        &["PLAINTEXT only"],
    );
    check(
        &["consume", "t", "-X", "security.protocol=ssl"],
        2,
        &["TLS is not built in"],
    );
    check(&["topic", "frobnicate"], 2, &["frobnicate"]);
    check(&["topic", "delete"], 2, &["required"]);
    check(
        &["cluster", "health", "--timeout", "1s"],
        2,
        &["--exit-when-healthy"],
    );
}

#[test]
fn help_lists_the_exit_codes() {
    let output = run(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Exit codes:"), "{text}");
    assert!(text.contains("10  `cluster health`"), "{text}");
}

#[test]
fn completions_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success());
        for word in ["oncelog", "reset-offsets", "delete-records"] {
            assert!(script.contains(word), "no {word} in the {shell} script");
        }
    }
}
