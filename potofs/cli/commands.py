"""The commands, each a few lines: what they do is in the layers below, imported when it is needed."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

import click

from potofs.cli.options import journal_options, refuse_memory
from potofs.config import Where
from potofs.errors import InvalidMessage
from potofs.journal.exchange import FORMATS, Format
from potofs.journal.journal import open_journal
from potofs.journal.message import ROLES, ChatMessage

# Bytes read from standard input at once; any will do.
_PIECE = 1 << 16


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="potofs")
def potofs() -> None:
    """A dialogue journal, the chat conversations of an application's users, as a tree of YAML files.

    \b
    Mount it and look around:
      potofs mount ./mnt
      cat ./mnt/users/mia/dialogs/current.yaml
      potofs umount ./mnt

    \b
    Or use it without a mount:
      potofs append mia "Where is my order?"
      potofs show mia

    Every command takes --root or --backend to say where the journal is; without them it is in ./data/dialogues.
    """


# No click.Path for a mountpoint: it would ask a mount there for its attributes, which may be one that hangs.
@potofs.command()
@click.argument("mountpoint")
@journal_options
@click.option("--foreground", is_flag=True, help="Stay in the foreground and log to standard error; Ctrl-C unmounts.")
@click.option("-o", "texts", metavar="OPTIONS", multiple=True, help="Mount options, with commas between; see below.")
@click.option("--owners", metavar="FILE", type=click.Path(), help="Which system user each user of the journal is.")
@click.option("--log", metavar="FILE", type=click.Path(), help="Where the daemon logs to.")
@click.option("--nonempty", is_flag=True, help="Mount over a folder that has something in it.")
@click.option("--source", hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
def mount(
    mountpoint: str,
    where: Where,
    foreground: bool,
    texts: tuple[str, ...],
    owners: str | None,
    log: str | None,
    nonempty: bool,
    source: str | None,
    ready_fd: int | None,
) -> None:
    """Mount the journal at MOUNTPOINT, a folder that is made if it is missing.

    Returns once the mount answers, and leaves a daemon behind; potofs umount ends it.

    \b
    Then, in MOUNTPOINT:
      ls users
      tail -F users/mia/dialogs/current.yaml
      mv users/mia/dialogs/current.yaml users/mia/dialogs/archived/

    \b
    OPTIONS are as in fstab(5), among them:
      ro                       refuse every change
      allow_other              let other system users in, as owners and modes say
      uid=USER,gid=GROUP       whose everything is, by name or number
      umask=027                permissions that nothing has; fmask, dmask: of files, of folders
      owners=FILE              as --owners; likewise log=FILE, nonempty
      archiveThreshold=500     and any other setting of the backend
    """
    from potofs.cli import mounting
    from potofs.mount import options

    chosen = options.parse(texts, owners=owners, log=log, nonempty=nonempty)
    where = chosen.applied_to(where)
    if foreground or ready_fd is not None:
        mounting.serve(mountpoint, where, chosen, source, ready_fd)
    else:
        mounting.start(mountpoint, where, chosen)


@potofs.command()
@click.argument("mountpoint")
@click.option("--lazy", is_flag=True, help="Take it away now, even if programs still have files open in it.")
def umount(mountpoint: str, lazy: bool) -> None:
    """Unmount the journal at MOUNTPOINT, and wait until its daemon has ended."""
    from potofs.cli import mounting

    if left := mounting.stop(mountpoint, lazy):
        click.echo(f"potofs: {left}", err=True)


@potofs.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, one list.")
def mounts(as_json: bool) -> None:
    """Print what is mounted here: where, on which backend, by which daemon, since when, and how busy it is.

    \b
    STATE is one of
      ok       the mount answers
      dead     its daemon was killed; potofs mount at the same place repairs it
      hung     it does not answer in time
      closed   it is another user's, who lets nobody in
      failing  it answers with an error
    What nobody tells this user, or what a mount does not know, is -.
    """
    from potofs.cli import listing

    click.echo(listing.as_json() if as_json else listing.as_table())


@potofs.command()
@click.argument("user")
@click.argument("text", nargs=-1)
@journal_options
@click.option("--role", type=click.Choice(ROLES), help="Who says TEXT.  [default: user]")
@click.option("--timestamp", metavar="TIME", help="When, such as 2024-01-15T10:30:00Z.  [default: now]")
def append(user: str, text: tuple[str, ...], where: Where, role: str | None, timestamp: str | None) -> None:
    """Append a message of USER: TEXT, or without it the records on standard input.

    A record is a YAML document with role and content, and a line --- after it; the last may do without the line. A
    message given twice with the same timestamp is stored once.

    \b
      potofs append mia "Where is my order?"
      potofs append mia --role assistant "On its way."
      potofs append mia < conversation.yaml
    """
    refuse_memory(where)
    if text:
        with open_journal(where) as journal:
            journal.add_message(user, ChatMessage(role or "user", " ".join(text), timestamp or ""))
        return
    if role or timestamp:
        raise click.UsageError("--role and --timestamp go with TEXT; a record on standard input has its own")
    if sys.stdin is None:
        raise click.UsageError("standard input is closed: give TEXT, or records on standard input")
    if sys.stdin.isatty():
        click.echo("Reading records from standard input; Ctrl-D ends it.", err=True)
    with open_journal(where) as journal:
        try:
            journal.append_pieces(user, iter(lambda: os.read(sys.stdin.fileno(), _PIECE), b""))
        except InvalidMessage as error:
            raise InvalidMessage(f"standard input, {error}") from None


@potofs.command()
@click.argument("user")
@journal_options
@click.option("--archive", metavar="NAME", help="An archive of USER instead of the running conversation.")
@click.option("--archives", is_flag=True, help="The names of USER's archives, oldest first.")
def show(user: str, where: Where, archive: str | None, archives: bool) -> None:
    """Print the running conversation of USER as it is stored.

    \b
      potofs show mia
      potofs show mia --archives
      potofs show mia --archive 20240115T103000.000Z
    """
    if archive is not None and archives:
        raise click.UsageError("--archive and --archives do not go together")
    with open_journal(where, create=False) as journal:
        journal.must_have_user(user)
        if archives:
            for found in sorted(journal.backend.archives(user), key=lambda found: found.stat.mtime_ns):
                click.echo(found.name)
            return
        for piece in journal.read_pieces(user, archive):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


@potofs.command()
@click.argument("user")
@journal_options
@click.option("--archive", metavar="NAME", help="An archive of USER instead of the running conversation.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="json", help="The file's form.  [default: json]")
def export(user: str, where: Where, archive: str | None, form: Format) -> None:
    """Print the running conversation of USER for other programs; nothing of a message is left out.

    JSON is an array of messages; CSV has a header, role,content,timestamp,metadata,extra, and a row for each.

    \b
      potofs export mia > mia.json
      potofs export mia --format csv > mia.csv
      potofs export mia --archive 20240115T103000.000Z
    """
    with open_journal(where, create=False) as journal:
        journal.must_have_user(user)
        for piece in journal.export_pieces(user, form, archive):
            sys.stdout.buffer.write(piece.encode())
        sys.stdout.buffer.flush()


@potofs.command()
@journal_options
def users(where: Where) -> None:
    """Print the ids of all users, one a line, sorted."""
    with open_journal(where, create=False) as journal:
        for user in sorted(journal.users()):
            click.echo(user)


@potofs.command()
@click.argument("users", metavar="[USER]...", nargs=-1)
@journal_options
@click.option("--repair", is_flag=True, help="Mend what is wrong; what is no message goes to rejected/.")
def fsck(users: tuple[str, ...], where: Where, repair: bool) -> None:
    """Check the journal, or USERs of it, and print what is wrong, a line each; without --repair nothing is changed.

    Ends with 0 if nothing is wrong, 3 if everything that was wrong is repaired, 4 if something is wrong. The journal
    may be in use meanwhile.

    \b
      potofs fsck
      potofs fsck mia --repair
    """
    from potofs.cli import checking

    with open_journal(where, create=False) as journal:
        sys.exit(checking.check(journal, users, repair))


@potofs.command("import")
@click.argument("file", type=click.Path())
@journal_options
def import_(file: str, where: Where) -> None:
    """Import conversations from FILE, one on each line, as JSON; - is standard input.

    \b
      {"user": "mia", "conversation": "refund", "messages": [
        {"role": "user", "content": "…", "timestamp": "2024-01-15T10:30:00Z"}, …]}

    (on one line). Several conversations of one user become archives, the last stays the running one. A file with a
    mistake in it is not imported at all; one that was imported before changes nothing. Each message needs its
    timestamp, by which it is known again.
    """
    from potofs.journal.importing import import_file, size_of

    refuse_memory(where)
    with _readable_twice(file) as (path, name), open_journal(where) as journal:
        hidden = not sys.stderr.isatty()
        with click.progressbar(length=size_of(path), label="Importing", file=sys.stderr, hidden=hidden) as bar:
            try:
                imported = import_file(journal, path, bar.update)
            except InvalidMessage as error:
                raise InvalidMessage(f"{name}, {error}") from None
    click.echo(
        f"{imported.conversations} conversations with {imported.messages} messages imported, "
        f"{imported.present} were there already"
    )


@contextmanager
def _readable_twice(file: str) -> Iterator[tuple[str, str]]:
    """The path of a file and what to call it; of standard input, which is there only once, a copy for the time."""
    if file != "-":
        yield file, file
        return
    if sys.stdin is None:
        raise click.UsageError("standard input is closed: name a FILE")
    if sys.stdin.isatty():
        click.echo("Reading conversations from standard input; Ctrl-D ends it.", err=True)
    with TemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield f"/proc/self/fd/{copy.fileno()}", "standard input"
