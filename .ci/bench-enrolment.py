#!/usr/bin/env python3
"""What an enrolment takes through a running daemon's socket, by itself and while the gallery is written anew beside it.

    .ci/bench-enrolment.py [--people 10000] [--rounds 200] [--pause-ms 20] [--memory]

Starts `target/release/faceid run` in a folder of its own (with --memory in /dev/shm, where a sync costs nothing), enrols synthetic people, then
times enrolments from the question to the answer. The answer comes when the change is durable, in the audit trail, and matched by, so that it
bounds the delay until a person is recognised. One caller asks for compactions all the while in the second half.
"""
import argparse, json, os, pathlib, random, shutil, socket, struct, subprocess, tempfile, threading, time

DIMENSION, MODEL = 128, b"faceid-embedder"
binary = pathlib.Path(__file__).resolve().parent.parent / "target/release/faceid"


def varint(n):
    out = bytearray()
    while True:
        out.append(n & 0x7F | (0x80 if n > 0x7F else 0))
        n >>= 7
        if not n:
            return bytes(out)


def text(value):
    return varint(len(value)) + value


def enroll(people):
    """postcard of `Request::Enroll`: no name, no groups, no dates; enrolled at 0; whose face it is besides is not asked."""
    def one(name):
        values = [random.gauss(0, 1) for _ in range(DIMENSION)]
        return text(name.encode()) + b"\0\0\0\0\0" + varint(1) + varint(DIMENSION) + struct.pack(f"<{DIMENSION}f", *values)
    return b"\0" + text(MODEL) + varint(len(people)) + b"".join(map(one, people)) + b"\1\0"


COMPACT = b"\x03"


def ask(path, message):
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        caller.sendall(struct.pack("<I", len(message)) + message)
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack("<I", answer[:4])[0]:
            more = caller.recv(65536)
            if not more:
                raise SystemExit("the daemon hung up")
            answer += more
    if answer[4:5] == b"\1":
        raise SystemExit(f"refused: {answer[6:].decode(errors='replace')}")


def quantiles(times):
    times = sorted(times)
    return {"n": len(times), **{f"p{q}_ms": round(times[min(len(times) - 1, len(times) * q // 100)] * 1e3, 2) for q in (50, 99)},
            "max_ms": round(times[-1] * 1e3, 2)}


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--people", type=int, default=10_000)
    words.add_argument("--rounds", type=int, default=200)
    words.add_argument("--pause-ms", type=float, default=20)
    words.add_argument("--memory", action="store_true")
    words = words.parse_args()
    home = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm" if words.memory else None))
    environment = {**os.environ, "FACEID_STATE_DIR": str(home / "state"), "FACEID_SECRETS_DIR": str(home / "secrets")}
    config = home / "config.toml"
    config.write_text('[models]\npack = "builtin"\n[inference]\nbackend = "tract"\n[publish]\nhost = "127.0.0.1"\nport = 1\n'
                      '[[cameras]]\nid = "front"\n[cameras.source.rtsp]\nurl = "rtsp://127.0.0.1:9/none"\n')
    subprocess.run([binary, "keygen"], env=environment, check=True, stdout=subprocess.DEVNULL)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(home / "notify"))
    notify.settimeout(60)
    log = open(home / "log", "wb")
    daemon = subprocess.Popen([binary, "--config", config, "run"], env={**environment, "NOTIFY_SOCKET": str(home / "notify")}, stderr=log)
    try:
        while b"READY=1" not in notify.recv(4096):
            pass
        path = home / "state/control.sock"
        for first in range(0, words.people, 500):
            ask(path, enroll([f"p{n}" for n in range(first, min(first + 500, words.people))]))
        ask(path, COMPACT)
        number = iter(range(10**9))

        def rounds(go_on):
            times = []
            while go_on(len(times)):
                message = enroll([f"new-{next(number)}"])
                began = time.perf_counter()
                ask(path, message)
                times.append(time.perf_counter() - began)
                time.sleep(words.pause_ms / 1e3)
            return times

        alone = rounds(lambda done: done < words.rounds)
        compactions, over = [], threading.Event()

        def compact():
            while not over.is_set():
                began = time.perf_counter()
                ask(path, COMPACT)
                compactions.append(time.perf_counter() - began)

        beside = threading.Thread(target=compact)
        beside.start()
        busy = rounds(lambda done: done < words.rounds)
        over.set()
        beside.join()
        print(json.dumps({"people": words.people, "dim": DIMENSION, "memory": words.memory, "enrolment": quantiles(alone),
                          "enrolment_while_compacting": quantiles(busy), "compaction": quantiles(compactions)}))
    except BaseException:
        print((home / "log").read_text(errors="replace")[-3000:])
        raise
    finally:
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(home)


main()
