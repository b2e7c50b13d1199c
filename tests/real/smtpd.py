"""A mail server for tests, on loopback and in the foreground.

Each mail that it accepts becomes DIR/NNN.eml, byte for byte, and DIR/NNN.json with its envelope: {"from", "to": […], "tls", "user"}.
A recipient whose local part is `fail` and a reply code, such as fail450@example.org or fail550@example.org, is refused with that code.
"""

import argparse
import asyncio
import json
import re
import ssl
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult

REASONS = {"4": "4.2.1 Mailbox busy, try again later", "5": "5.1.1 No such mailbox"}


class Mailbox:
    def __init__(self, directory):
        self.directory = directory
        self.count = len(list(directory.glob("*.eml")))

    async def handle_RCPT(self, server, session, envelope, address, options):
        refused = re.match(r"fail([45]\d\d)@", address)
        if refused:
            code = refused[1]
            return f"{code} {REASONS[code[0]]}"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        facts = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": server.transport.get_extra_info("cipher") is not None,
            "user": session.auth_data,
        }
        # The envelope last and in one move: whoever sees it finds both files whole.
        mail = self.directory / f"{self.count:03}"
        mail.with_suffix(".eml").write_bytes(envelope.original_content)
        mail.with_suffix(".part").write_text(json.dumps(facts))
        mail.with_suffix(".part").rename(mail.with_suffix(".json"))
        return f"250 2.0.0 Stored as {mail.name}"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tls", choices=["starttls", "implicit"], help="refuse mail without it")
    parser.add_argument("--cert", type=Path, help="PEM chain, for --tls")
    parser.add_argument("--key", type=Path, help="PEM key, for --tls")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="refuse mail from anybody else")
    return parser.parse_args()


async def serve(args):
    context = None
    if args.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(args.cert, args.key)
    starttls = args.tls == "starttls"

    def authenticate(server, session, envelope, mechanism, credentials):
        user, password = (part.decode() for part in (credentials.login, credentials.password))
        # `handled` would mean that the client has had its answer.
        return AuthResult(success=f"{user}:{password}" == args.auth, handled=False, auth_data=user)

    mailbox = Mailbox(args.directory)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(
            mailbox,
            hostname="localhost",
            enable_SMTPUTF8=True,
            tls_context=context if starttls else None,
            require_starttls=starttls,
            authenticator=authenticate,
            auth_required=args.auth is not None,
            # aiosmtpd knows only of the TLS that it began itself.
            auth_require_tls=starttls,
        ),
        host="127.0.0.1",
        port=args.port,
        ssl=None if starttls else context,
    )
    print(f"listening on 127.0.0.1:{args.port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(options()))
