#!/usr/bin/env python3
"""Opens a door by the grants of a FaceID+ device and by nothing else: prints a line where a lock would be driven.

    verify.py --keys pinned.json --device gate --door front [--broker HOST] [--memory FILE] ...

`faceid keygen --public` prints the keys to pin. Needs PyJWT, cryptography and paho-mqtt 2. Keys that others endorse are not learnt (README.md, "Keys").
"""
import argparse, json, os, re, time
import jwt

LEEWAY, LONGEST, MEMBERS = 2, 300, {"alg", "kid", "typ"}


class Refused(Exception):
    """Why a grant opens nothing: a word of README.md."""


class Door:
    def __init__(self, keys, device, door, memory=None, since=None):
        self.keys = {key.key_id: key.key for key in jwt.PyJWKSet.from_dict(keys).keys}
        self.device, self.door, self.memory = device, door, memory
        known = memory is not None and os.path.exists(memory)
        self.taken = json.load(open(memory)) if known else {}
        # Without a memory of what was taken before, nothing is believed that was signed before the start.
        self.since = since if since is not None else 0 if known else time.time()

    def judge(self, token, retained=False, now=None):
        """The claims of a grant that opens the door now, once; raises Refused for every other one."""
        now = time.time() if now is None else now
        if retained:
            raise Refused("retained")
        if not isinstance(token, str) or len(token) > 2048 or not re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", token):
            raise Refused("malformed")
        try:
            header = jwt.get_unverified_header(token)
            if set(header) - MEMBERS or header.get("typ", "JWT") != "JWT":
                raise Refused("malformed")
            if header.get("alg") != "EdDSA":
                raise Refused("algorithm")
            if header.get("kid") not in self.keys:
                raise Refused("unknown-key")
            unjudged = {"verify_" + name: False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
            said = jwt.decode(token, self.keys[header["kid"]], algorithms=["EdDSA"], options=unjudged)
        except jwt.InvalidSignatureError:
            raise Refused("signature")
        except (jwt.PyJWTError, RecursionError):
            raise Refused("malformed")
        times, texts = [said.get(name) for name in ("iat", "nbf", "exp")], [said.get(name) for name in ("iss", "aud", "sub", "jti")]
        if any(type(value) is not int for value in times) or any(type(value) is not str for value in texts):
            raise Refused("malformed")
        if "hold_s" in said or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", said["jti"]):
            raise Refused("malformed")
        (iat, nbf, exp), first = times, min(times[:2])
        for holds, word in [
            (said["aud"] == self.door, "audience"), (said["iss"] == self.device, "issuer"),
            (exp > iat and exp > nbf and exp - first <= LONGEST, "lifetime"), (max(iat, nbf) <= now + LEEWAY, "not-yet"),
            (now < exp + LEEWAY, "expired"), (said["jti"] not in self.taken and iat > self.since, "used"),
        ]:
            if not holds:
                raise Refused(word)
        self.remember(said["jti"], exp + LEEWAY, now)
        return said

    def remember(self, jti, until, now):
        """On the disk before the door opens."""
        self.taken = {old: end for old, end in self.taken.items() if end > now} | {jti: until}
        if self.memory:
            with open(self.memory + ".new", "w") as file:
                json.dump(self.taken, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.memory + ".new", self.memory)


def main():
    import paho.mqtt.client as mqtt
    parser = argparse.ArgumentParser()
    for name in ("--keys", "--device", "--door"):
        parser.add_argument(name, required=True)
    for name, default in [("--broker", "localhost"), ("--port", "1883"), ("--base", "faceid"), ("--user", None), ("--password-file", None), ("--ca", None), ("--memory", None)]:
        parser.add_argument(name, default=default)
    args = parser.parse_args()
    door = Door(json.load(open(args.keys)), args.device, args.door, args.memory)

    def hear(client, _, message):
        try:
            token = json.loads(message.payload)["data"].get("grant")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        if token is None:
            return
        try:
            said = door.judge(token, message.retain)
        except Refused as why:
            return print("refused", why, flush=True)
        print("open", args.door, said["sub"], said["jti"], flush=True)  # Drive the lock here, for your own time.

    def connected(client, _, flags, reason, properties):
        client.subscribe(f"{args.base}/{args.device}/door/{args.door}/decision", qos=1)

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_connect, client.on_message = connected, hear
    client.on_subscribe = lambda _client, _data, _id, codes, _properties: print("listening" if not codes[0].is_failure else f"not allowed: {codes[0]}", flush=True)
    if args.user:
        client.username_pw_set(args.user, open(args.password_file).read().strip() if args.password_file else None)
    if args.ca:
        client.tls_set(args.ca)
    client.connect(args.broker, int(args.port))
    client.loop_forever()


if __name__ == "__main__":
    main()
