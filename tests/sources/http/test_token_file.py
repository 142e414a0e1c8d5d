"""The file of a refresh token: OAuth2 servers that replace the token at each use."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import signal
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.core.secrets import Secret
from asyncbatch.errors import UsageError
from asyncbatch.sources.http.access.token_file import TokenFile, TokenFileError
from asyncbatch.sources.http.base import HttpError
from asyncbatch.sources.http.settings import HttpSettings
from asyncbatch.sources.http.source import HttpSource
from tests.commands import COMMAND, PATIENCE, CommandProcess, environment
from tests.faults.disks import Disk, MemoryDisk, mounted, unprivileged
from tests.processes import holds_open, wait_until, wait_until_still
from tests.servers.access import CLIENT, AccessApi
from tests.servers.api import FakeTime, read
from tests.sources.http.test_access import etl, failure_of, oauth2, pipeline, rows

FIRST = "r3fresh-word"


@pytest.fixture
def api():
    with AccessApi() as server:
        server.refresh_token = FIRST
        yield server
        server.may_answer.set()


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{FIRST}\n")
    path.chmod(0o600)
    return path


def source(api, path="/items", file="token", **more):
    """Return the table of a source."""
    pairs = {
        "type": "oauth2", "token_url": api.url("/token"), "client_id": CLIENT[0],
        "client_secret": CLIENT[1], "refresh_token_file": file, **more,
    }  # fmt: skip
    auth = ", ".join(f"{name} = {json.dumps(str(text))}" for name, text in pairs.items() if text)
    return f'urls = ["{api.url(path)}"]\nauth = {{ {auth} }}'


def settings_for(api, path, **more):
    auth = oauth2(api, refresh_token_file=str(path))
    return HttpSettings(**{"urls": (api.url("/items"),), "retries": 1, "auth": auth, **more})


def start(folder, *arguments, prefix=(), **env):
    """Start a run of the pipeline file. `prefix` is put before a command of its own."""
    command = ["etl", "p.toml", "--workers", "0", *arguments]
    kind = CommandProcess if not prefix else subprocess.Popen
    return kind(
        [*prefix, *COMMAND, *command] if prefix else command, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=folder, env=environment(**env),
    )  # fmt: skip


def finish(running):
    """Return the exit status and the output of a run."""
    with running:
        texts = running.communicate(timeout=PATIENCE)
    return running.returncode, b"".join(texts).decode()


def sent(api):
    """Return the refresh tokens of all requests, in their order."""
    return [asked.form.get("refresh_token") for asked in api.of("/token")]


def test_each_run_uses_the_token_of_the_run_before(tmp_path, api, token):
    pipeline(tmp_path, source(api))
    for number in range(3):
        ran = etl(tmp_path, "--report", "r.json", "--log-file", "log", "-v")
        assert ran.returncode == 0, ran.stdout
        assert token.read_text() == f"{FIRST}{'+' * (number + 1)}\n"
        outputs = [ran.stdout, ran.stderr, (tmp_path / "r.json").read_text()]
        assert not any(FIRST in text for text in (*outputs, (tmp_path / "log").read_text()))
    assert sent(api) == [FIRST, f"{FIRST}+", f"{FIRST}++"]
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.glob("*token*")] == ["token"]
    token.write_text(FIRST)
    ran = etl(tmp_path)
    assert ran.returncode == 1
    assert "was used: get a new one, and write it into token" in " ".join(ran.stdout.split())
    assert token.read_text() == FIRST
    assert FIRST not in ran.stdout + ran.stderr


def test_a_run_that_renews_its_token_reads_the_file_each_time(tmp_path, api, token):
    """A token of the file that another program has written counts, not that of the last fetch."""

    async def go():
        settings = settings_for(api, token)
        async with HttpSource(settings) as one:
            for _ in range(3):
                assert [page.number async for page in one.pages(settings.urls[0])] == [1]
                api.valid.clear()
                api.refresh_token += "-other"
                token.write_text(api.refresh_token)

    asyncio.run(go())
    other = f"{FIRST}+-other"
    assert sent(api) == [FIRST, other, f"{other}+-other"]


@pytest.mark.parametrize("mode", [0o400, 0o640, 0o604])
def test_the_file_keeps_its_rights(tmp_path, api, token, mode):
    token.chmod(mode)
    if os.geteuid() == 0:
        os.chown(token, 12345, 54321)
    before = token.stat()
    pipeline(tmp_path, source(api))
    before_umask = os.umask(0o077)
    try:
        assert etl(tmp_path).returncode == 0
    finally:
        os.umask(before_umask)
    after = token.stat()
    assert token.read_text() == f"{FIRST}+\n"
    assert [before.st_mode, before.st_uid, before.st_gid] == [
        after.st_mode, after.st_uid, after.st_gid,
    ]  # fmt: skip


def test_a_link_stays_and_its_target_is_replaced(tmp_path, api, token):
    home = tmp_path / "home"
    home.mkdir()
    (home / "link").symlink_to("../token")
    pipeline(tmp_path, source(api, file="~/link"))
    ran = etl(tmp_path, HOME=str(home))
    assert ran.returncode == 0, ran.stdout
    assert os.readlink(home / "link") == "../token"
    assert token.read_text() == f"{FIRST}+\n"
    assert [path.name for path in home.iterdir()] == ["link"]


@pytest.mark.parametrize(
    "content",
    [FIRST, f"\ufeff\n  {FIRST}\t\r\n\n", f"{FIRST}\u00a0\n"],
    ids=["bare", "bom", "nbsp"],
)
def test_white_space_around_the_token_is_ignored(tmp_path, api, token, content):
    token.write_text(content)
    pipeline(tmp_path, source(api))
    assert etl(tmp_path).returncode == 0
    assert sent(api) == [FIRST]


def test_a_server_that_keeps_the_token(tmp_path, api, token):
    before = token.stat()
    answer = {"access_token": "t0ken-x", "refresh_token": FIRST}
    api.valid.add("t0ken-x")
    for more in ({}, {"refresh_token": FIRST}, {"refresh_token": None}, {"refresh_token": ""}):
        api.token_answers = [(200, {**answer, "refresh_token": None, **more})]
        asyncio.run(read(settings_for(api, token)))
    assert (token.stat().st_ino, token.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_sources_of_one_run_share_a_file(tmp_path, api, token):
    pipeline(
        tmp_path,
        *(source(api, f"/items?of={number}") for number in range(4)),
        key=None,
        mode="append",
    )
    ran = etl(tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert len(rows(tmp_path)) == 8
    assert sent(api) == [f"{FIRST}{'+' * number}" for number in range(4)]
    assert token.read_text() == f"{FIRST}++++\n"


def test_runs_at_once_wait_for_each_other(tmp_path, api, token):
    """The server replaces the token at once, and answers late."""
    pipeline(tmp_path, source(api))
    api.may_answer.clear()
    to = [("--set", f"sink.to=sqlite:///{number}.db") for number in range(3)]
    running = [start(tmp_path, *to[0])]
    wait_until(lambda: api.of("/token"), running=running[0])
    running += [start(tmp_path, *one) for one in to[1:]]
    assert wait_until_still(lambda: len(api.of("/token"))) == 1
    assert token.read_text() == f"{FIRST}\n"
    api.may_answer.set()
    for one in running:
        code, told = finish(one)
        assert code == 0, told
    assert sent(api) == [FIRST, f"{FIRST}+", f"{FIRST}++"]
    assert api.most_at_once == 1
    assert token.read_text() == f"{FIRST}+++\n"


def test_a_run_that_is_killed_before_the_answer(tmp_path, api, token):
    """Only the server has the next token then. The file is whole, and nothing holds the lock."""
    pipeline(tmp_path, source(api))
    api.may_answer.clear()
    with start(tmp_path) as running:
        wait_until(lambda: api.of("/token"), running=running)
        assert holds_open(running.pid, token)
        running.kill()
    api.may_answer.set()
    assert token.read_text() == f"{FIRST}\n"
    token.write_text(api.refresh_token)
    assert etl(tmp_path).returncode == 0
    assert token.read_text() == f"{FIRST}++\n"
    assert [path.name for path in tmp_path.glob("*token*")] == ["token"]


def test_runs_that_are_killed_leave_a_whole_token(tmp_path, api, token):
    """The server takes a token until its successor is used, so that no kill can lose it."""
    api.accepts_former = True
    pipeline(tmp_path, source(api))
    pick, kills = random.Random(5), 0
    for _ in range(8):
        count = len(api.seen) + pick.randint(1, 2)
        with start(tmp_path, "--full-refresh") as running:
            wait_until(lambda count=count: len(api.seen) >= count or running.poll() is not None)
            kills += running.poll() is None
            running.kill()
        found = token.read_text()
        assert found.strip() in (api.refresh_token, api.former_refresh_token)
        assert found.endswith("\n")
    assert kills
    assert etl(tmp_path, "--full-refresh").returncode == 0
    assert rows(tmp_path) == [(1,), (2,)]
    assert [path.name for path in tmp_path.glob("*token*")] == ["token"]


def test_a_run_that_is_stopped_waits_for_the_next_token(tmp_path, api, token):
    pipeline(tmp_path, source(api))
    api.may_answer.clear()
    with start(tmp_path) as running:
        wait_until(lambda: api.of("/token"), running=running)
        running.send_signal(signal.SIGTERM)
        wait_until_still(running.poll)
        api.may_answer.set()
        assert running.wait(timeout=PATIENCE) == 143
    assert token.read_text() == f"{FIRST}+\n"


async def test_a_program_that_is_cancelled_waits_for_the_next_token(api, token):
    api.may_answer.clear()
    reading = asyncio.create_task(read(settings_for(api, token)))
    await asyncio.to_thread(wait_until, lambda: api.of("/token"))
    reading.cancel()
    await asyncio.sleep(0)
    api.may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert token.read_text() == f"{FIRST}+\n"


async def test_a_program_that_is_cancelled_while_it_waits_for_the_lock(api, token):
    async with TokenFile(str(token)).hold():
        reading = asyncio.create_task(read(settings_for(api, token)))
        await asyncio.sleep(0.2)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert api.seen == []
    assert await read(settings_for(api, token))


MISTAKES = {
    "missing": (None, "there is no file {}: write the first refresh token into it"),
    "empty": (b" \n", "{} is empty: write the refresh token into it, and nothing else"),
    "latin": (b"r3fresh-\xe9", "{} is not UTF-8: write the refresh token into it, and nothing el"),
    "lines": (b"r3fresh-1\nr3fresh-2", "{} has several lines: write the refresh token into it, an"),
    "nul": (b"r3fresh\0x", "{} has control characters: write the refresh token into it, and not"),
    "long": (b"r3fresh" * 10_000, "{} has more than 65.5 kB: write the refresh token into it, and"),
    "folder": ("folder", "{} is not a regular file: name a file"),
    "pipe": ("pipe", "{} is not a regular file: name a file"),
}


def test_files_that_cannot_be_used(tmp_path, api):
    for name, (content, _) in MISTAKES.items():
        path = tmp_path / name
        if content == "folder":
            path.mkdir()
        elif content == "pipe":
            os.mkfifo(path)
        elif content is not None:
            path.write_bytes(content)
    sources = [source(api, f"/items?of={name}", name) for name in MISTAKES]
    pipeline(tmp_path, *sources)
    for arguments in (("--check",), ()):
        ran = etl(tmp_path, *arguments)
        assert ran.returncode == 2
        assert "r3fresh" not in ran.stderr
        lines = [line.strip() for line in ran.stderr.splitlines()[1:]]
        for at, (name, (_, message)) in enumerate(MISTAKES.items()):
            key = f"source[{at}].auth.refresh_token_file"
            assert lines[at].startswith(f"{key}: {message.format(name)}")
    assert api.seen == []
    with pytest.raises(UsageError, match="refresh_token_file: there is no file nosuch: write"):
        HttpSource(settings_for(api, "nosuch"))


def test_keys_beside_the_file(tmp_path, api, token):
    pipeline(tmp_path, source(api, client_secret=""))
    ran = etl(tmp_path, "--check")
    assert ran.returncode == 0, ran.stderr
    assert FIRST in token.read_text()
    assert [path.name for path in tmp_path.glob("*token*")] == ["token"]
    pipeline(tmp_path, source(api, refresh_token="r3fresh-other"))
    ran = etl(tmp_path, "--check")
    key = "source[0].auth.refresh_token_file"
    assert f"{key}: excludes refresh_token: write it into the file" in ran.stderr
    assert "r3fresh" not in ran.stderr


async def test_a_file_that_goes_while_the_run_goes_on(api, token):
    settings = settings_for(api, token, retries=3)
    async with HttpSource(settings) as one:
        token.unlink()
        with pytest.raises(HttpError, match=r"there is no file .*: write the first") as caught:
            await anext(one.pages(settings.urls[0]))
    failure = caught.value.failure
    assert (failure.reason, failure.attempts) == ("token", 1)
    assert failure.message.startswith("no access token (OAuth2): refresh_token_file: ")
    assert api.seen == []


def test_a_folder_that_may_not_be_written(tmp_path, api):
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "token").write_text(FIRST)
    pipeline(tmp_path, source(api, file="closed/token"))
    folder.chmod(0o500)
    try:
        for arguments in (("--check",), ()):
            code, told = finish(start(tmp_path, *arguments, prefix=unprivileged()))
            assert code == 2
            message = (
                "auth.refresh_token_file: the folder of closed/token cannot be written, and the "
                "server may replace the token: change its rights, or move the file (Permission de"
            )
            assert message in told
            assert FIRST not in told
    finally:
        folder.chmod(0o700)
    assert api.seen == []
    assert [path.name for path in folder.iterdir()] == ["token"]


def test_a_folder_in_which_only_owners_replace_files(tmp_path, api):
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "token").write_text(FIRST)
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(folder, 12345, 0)
    os.chown(folder / "token", 12346, 0)
    (folder / "token").chmod(0o666)
    folder.chmod(0o1777)
    pipeline(tmp_path, source(api, file="shared/token"))
    prefix = (
        "setpriv",
        "--reuid=12347",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    )
    code, told = finish(start(tmp_path, "--check", prefix=prefix))
    assert code == 2
    assert "(there only owners replace their files)" in told


def test_a_file_that_is_mounted_by_itself(tmp_path, api, token):
    """As containers do it: then no other file can take its place."""
    odd = tmp_path / "the \\ token"
    token.rename(odd)
    pipeline(tmp_path, source(api, file=odd.name))
    with mounted(Disk(tmp_path / "disk")) as disk:
        disk.do(f"mount --bind '{odd}' '{odd}'")
        code, told = finish(start(tmp_path, "--check", prefix=disk.prefix))
    assert code == 2
    assert "is mounted by itself, so it cannot be replaced: mount its folder" in told
    assert api.seen == []


def test_a_full_disk_is_found_before_the_token_is_used(tmp_path, api):
    with mounted(MemoryDisk(tmp_path / "disk", "64k")) as disk:
        disk.do(f"printf %s {FIRST} > '{disk.path}/token'")
        pipeline(tmp_path, source(api, file="disk/token"))
        disk.do(f"head -c 1000000 /dev/zero > '{disk.path}/other'; true")
        code, told = finish(start(tmp_path, prefix=disk.prefix))
        assert code == 1
        told = " ".join(told.split())
        assert "disk/token is not used, because the next token could not be written beside" in told
        assert "(No space left on device): make room there" in told
        assert api.seen == []
        disk.do(f"rm '{disk.path}/other'")
        assert finish(start(tmp_path, prefix=disk.prefix))[0] == 0
        disk.do(f"grep -qx {FIRST}+ '{disk.path}/token'")


async def test_the_old_token_stays_if_the_new_one_cannot_be_written(tmp_path, api):
    """Then the access token is not used."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "token").write_text(FIRST)
    api.may_answer.clear()
    reading = asyncio.create_task(failure_of(settings_for(api, folder / "token")))
    await asyncio.to_thread(wait_until, lambda: api.of("/token"))
    folder.rename(tmp_path / "away")
    api.may_answer.set()
    failed = await reading
    assert "keeps the old refresh token, because the new one could not be written" in failed.message
    assert "if the server refuses the old one, write another one into it" in failed.message
    assert (failed.reason, failed.attempts) == ("token", 1)
    assert FIRST not in failed.message
    assert (tmp_path / "away" / "token").read_text() == FIRST
    assert api.of("/items") == []


@pytest.mark.parametrize("rotated", ["r3fresh\nnext", " r3fresh", "r3fresh" * 10_000, "r3\0fresh"])
async def test_a_new_token_that_no_file_can_hold(api, token, rotated):
    api.token_answers = [(200, {"access_token": "t0ken-x", "refresh_token": rotated})]
    failed = await failure_of(settings_for(api, token))
    assert "keeps the old refresh token, because the new one of the server is no line" in (
        failed.message
    )
    assert rotated not in failed.message
    assert token.read_text() == f"{FIRST}\n"


@pytest.mark.parametrize(
    "answer",
    [
        (400, {"error": f"{FIRST} n3xt-word", "error_description": f"{FIRST} for n3xt-word"}),
        (503, {"error": "n3xt-word", "error_description": FIRST}),
        (200, {"error": f"n3xt-word {FIRST}", "error_description": f"x{FIRST}"}),
        (200, {"access_token": "t0ken-x", "token_type": f"{FIRST} n3xt-word"}),
    ],
)
async def test_no_answer_of_the_token_endpoint_shows_a_token(api, token, answer):
    api.token_answers = [(answer[0], {**answer[1], "refresh_token": "n3xt-word"})] * 2
    failed = await failure_of(settings_for(api, token))
    assert failed.reason in ("token", "status")
    assert "***" in failed.message
    assert FIRST not in failed.message
    assert "n3xt-word" not in failed.message
    # The server has answered with success, so it may take the old one no more.
    assert token.read_text() == ("n3xt-word\n" if answer[0] == 200 else f"{FIRST}\n")


async def test_no_answer_of_the_api_shows_a_token(api, token):
    api.items = {"old": FIRST, "new": f"{FIRST}+", "next": "x" * 150}
    failed = await failure_of(settings_for(api, token, records="/nosuch"))
    assert failed.reason == "no_records"
    assert "***" in failed.body
    assert FIRST not in failed.message


def test_parents_and_children_hide_the_tokens_of_each_other(tmp_path, api, token):
    api.items = [{"id": 1, "of": f"{FIRST}+"}]
    table = source(api, "/items?of={id}")
    pipeline(tmp_path, f'{table}\nparent = {{ urls = ["{api.url("/items")}"] }}\nrecords = "/a"')
    ran = etl(tmp_path, "--report", "r.json", "-v")
    assert ran.returncode == 1
    assert len(api.of("/token")) == 1
    outputs = ran.stdout + ran.stderr + (tmp_path / "r.json").read_text()
    assert "***" in outputs
    assert FIRST not in outputs


async def test_a_source_that_joins_later_hides_the_tokens_so_far(api, token):
    settings = settings_for(api, token, records="/nosuch")
    first, second = HttpSource(settings_for(api, token)), HttpSource(settings)
    async with first, second:
        assert [page.number async for page in first.pages(settings.urls[0])] == [1]
        second.share_limits(first)
        api.items = {"old": FIRST, "new": f"{FIRST}+"}
        with pytest.raises(HttpError) as caught:
            await anext(second.pages(settings.urls[0]))
    assert "***" in caught.value.failure.message
    assert FIRST not in caught.value.failure.message


@pytest.mark.parametrize("name", ["token", "./token", "link"])
def test_the_file_is_no_output(tmp_path, api, token, name):
    (tmp_path / "link").symlink_to("token")
    pipeline(tmp_path, source(api))
    assert etl(tmp_path, "--log-file", name).returncode == 2  # it is no log
    ran = etl(tmp_path, "--report", name)
    assert ran.returncode == 2
    assert "token is read by this run: it cannot be written to" in ran.stderr
    text = (tmp_path / "p.toml").read_text() + f'[dead_letter]\nto = "{name}"\n'
    (tmp_path / "p.toml").write_text(text)
    ran = etl(tmp_path)
    assert ran.returncode == 2
    assert "token is read by this run: it cannot be written to" in ran.stderr
    assert token.read_text() == f"{FIRST}\n"
    assert api.seen == []


def test_a_later_run_continues_with_another_token(tmp_path, api, token):
    """Neither the token nor its file is part of the identity of a source."""
    pipeline(tmp_path, f"{source(api, '/state')}\nconditional = true")

    def records_read():
        ran = etl(tmp_path, "-o", "json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)["records"]["read"]

    assert [records_read(), records_read()] == [2, 0]
    token.rename(tmp_path / "moved")
    pipeline(tmp_path, f"{source(api, '/state', 'moved')}\nconditional = true")
    api.refresh_token = "an-0ther-word"
    (tmp_path / "moved").write_text(api.refresh_token)
    assert records_read() == 0
    assert len(api.of("/token")) == 3


async def test_a_refresh_token_of_the_settings_is_told_to_no_file(tmp_path, api):
    auth = oauth2(api, refresh_token=Secret(FIRST))
    settings = HttpSettings(urls=(api.url("/items"),), auth=auth)
    assert await read(settings, time=FakeTime())
    assert list(tmp_path.iterdir()) == []


TOKENS = st.text(min_size=1).filter(lambda one: one.isprintable() and one.strip() == one)


@given(st.lists(TOKENS, min_size=1, max_size=5))
def test_a_token_that_was_written_is_read(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("tokens") / "token"
    path.write_text("first")

    async def go():
        found = []
        for token in [*tokens, None]:
            async with TokenFile(str(path)).hold() as held:
                found.append(held.token)
                await held.prepare()
                if token is not None:
                    await held.replace(token)
        return found

    assert asyncio.run(go()) == ["first", *tokens]
    assert [one.name for one in path.parent.iterdir()] == ["token"]


async def test_a_lock_counts_on_the_file_that_has_the_name(tmp_path):
    """Many holders in turn, each of which replaces the file that others wait for."""
    path = tmp_path / "token"
    path.write_text("0")

    async def add():
        async with TokenFile(str(path)).hold() as held:
            await held.prepare()
            await asyncio.sleep(0.001)
            await held.replace(str(int(held.token) + 1))

    await asyncio.gather(*(add() for _ in range(20)))
    assert path.read_text() == "20\n"
    with pytest.raises(TokenFileError, match="there is no file"):
        async with TokenFile(str(tmp_path / "nosuch")).hold():
            pass


async def test_a_file_that_is_replaced_between_its_opening_and_its_lock(tmp_path, monkeypatch):
    path, lock = tmp_path / "token", fcntl.flock
    path.write_text("old")

    def replace_and_lock(*arguments):
        monkeypatch.setattr(fcntl, "flock", lock)
        (tmp_path / "other").write_text("new")
        (tmp_path / "other").rename(path)
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", replace_and_lock)
    async with TokenFile(str(path)).hold() as held:
        assert held.token == "new"
