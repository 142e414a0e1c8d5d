"""The user's own tables: more columns, identities, row policies, constraints."""

from __future__ import annotations

import pytest

from tests.sinks.postgres.test_tables import messages, types


def test_an_upsert_leaves_columns_that_no_record_has(load, sql):
    sql(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, note text, made int NOT NULL DEFAULT 5);"
        " INSERT INTO t VALUES (1, 'old', 'mine', 3)"
    )
    records = [{"id": 1, "v": "new"}, {"id": 2, "v": None}]
    assert load(records, "--key", "id")["exit_code"] == 0
    assert sql("SELECT * FROM t ORDER BY id") == [(1, "new", "mine", 3), (2, None, None, 5)]
    records = [{"id": 1, "note": None}, {"id": 2, "note": "x"}]
    assert load(records, "--key", "id", name="b.jsonl")["exit_code"] == 0
    assert sql("SELECT * FROM t ORDER BY id") == [(1, "new", None, 3), (2, None, "x", 5)]


@pytest.mark.parametrize("first", [[{"id": 1, "v": 1, "w": 1}], [{"id": 1}, {"id": 1, "w": 1}]])
def test_an_upsert_replaces_the_columns_that_loads_have_made(load, sql, first):
    load([{"id": 1, "at": "2026-01-01T00:00:00Z"}], "--key", "id")
    load(first, "--key", "id", "--load-batch", "1", name="b.jsonl")
    sql("ALTER TABLE t ADD note text; UPDATE t SET note = 'mine'")
    load([{"id": 1}], "--key", "id", name="c.jsonl")
    (row,) = sql("SELECT id, w, at, note FROM t")
    assert row == (1, None, None, "mine")


def test_columns_of_times_that_became_text_are_replaced_too(load, sql):
    load([{"id": 1, "at": "2026-01-01T00:00:00Z"}], "--key", "id")
    load([{"id": 2, "at": "soon"}], "--key", "id", name="b.jsonl")
    load([{"id": 1}], "--key", "id", name="c.jsonl")
    assert sql("SELECT id, at FROM t ORDER BY id") == [(1, None), (2, "soon")]
    load([{"id": 3, "at": "2026-01-01T00:00:00Z"}], "--key", "id", name="d.jsonl")
    assert types(sql)["at"] == "text"


IDENTITY = "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text); SELECT 1"


def test_values_for_an_identity_are_refused_with_the_reason(load, run, sql, url, tmp_path):
    sql(IDENTITY)
    report = load([{"id": 7, "v": "a"}, {"v": "b"}, {"id": None, "v": "c"}])
    (message,) = messages(report)
    assert "GENERATED ALWAYS AS IDENTITY" in message
    assert "--override-identity" in message
    assert sql("SELECT * FROM t") == [(1, "b"), (2, "c")]
    finished = run("in.jsonl", "--to", url, "--table", "t", "--key", "id")
    assert finished.code == 2
    assert "column id of table t cannot be the key" in finished.stderr
    assert "GENERATED ALWAYS AS IDENTITY" in finished.stderr


@pytest.mark.parametrize("key", [(), ("--key", "id")])
def test_values_for_an_identity_are_written_if_asked_for(load, sql, key):
    sql(IDENTITY)
    report = load([{"id": 7, "v": "a"}, {"id": 8, "v": "b"}], "--override-identity", *key)
    assert report["exit_code"] == 0
    records = [{"id": 9, "v": "x"}, {"id": 7, "v": "y"}]
    again = load(records, "--override-identity", *key, name="b.jsonl")
    if key:
        assert sql("SELECT * FROM t ORDER BY id") == [(7, "y"), (8, "b"), (9, "x")]
    else:
        assert sql("SELECT * FROM t ORDER BY id") == [(7, "a"), (8, "b"), (9, "x")]
        assert "23505" in messages(again)[0]


def test_an_upsert_does_not_change_an_identity(load, sql):
    sql("CREATE TABLE t (k text PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY); SELECT 1")
    report = load([{"k": "a"}, {"k": "b", "n": 9}], "--override-identity", "--key", "k")
    assert "in an upsert only into the key" in messages(report)[0]
    assert sql("SELECT * FROM t") == [("a", 1)]


@pytest.fixture
def guarded(server, database, sql):
    """Return the address of a role to which the policies of table t apply."""
    sql(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, tenant int);"
        " ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY mine ON t USING (tenant = 1); CREATE POLICY more ON t FOR INSERT"
        " WITH CHECK (tenant = 1 AND v <> 'bad');"
        " DROP ROLE IF EXISTS guarded; CREATE ROLE guarded LOGIN;"
        " GRANT ALL ON t TO guarded; GRANT CREATE ON SCHEMA public TO guarded;"
        " INSERT INTO t VALUES (50, 'theirs', 2)"
    )
    yield f"postgresql://guarded@127.0.0.1:{server.port}/{database}"
    sql("DROP OWNED BY guarded; DROP ROLE guarded")


@pytest.mark.parametrize("key", [(), ("--key", "id")])
def test_rows_that_policies_forbid_are_rejected_and_the_rest_is_loaded(load, sql, guarded, key):
    records = [{"id": number, "v": "ok", "tenant": 1} for number in range(40)]
    records[7]["tenant"] = 2
    report = load([*records, {"id": 50, "v": "x", "tenant": 1}], *key, to=guarded)
    assert [failure["record"] for failure in report["failures"]] == [8, 41]
    assert "policy" in messages(report)[0]
    expected = [(n, "ok") for n in range(40) if n != 7]
    assert sql("SELECT id, v FROM t ORDER BY id") == [*expected, (50, "theirs")]


def test_a_column_that_may_not_be_written_is_no_matter_of_rows(load, run, server, database, sql):
    """Without policies, a missing permission ends the run instead of rejecting every record."""
    sql(
        "CREATE TABLE t (id bigint, v text); CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE insufficient_privilege; END $$;"
        " CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()"
    )
    report = load([{"id": 1, "v": "x"}, {"id": 2, "v": "y"}])
    assert report["exit_code"] == 1
    assert report["records"]["written"] == 0
    assert "42501" in str(report)


def test_constraints_reject_their_records_alone(load, sql):
    sql(
        "CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1);"
        " CREATE TABLE t (id bigint PRIMARY KEY, v text NOT NULL CHECK (v <> 'bad'),"
        " o int REFERENCES other, EXCLUDE (v WITH =))"
    )
    records = [
        {"id": 1, "v": "a", "o": 1}, {"id": 2, "v": None}, {"id": 3}, {"id": 4, "v": "bad"},
        {"id": 5, "v": "b", "o": 2}, {"id": 6, "v": "a"}, {"id": 7, "v": "c"},
    ]  # fmt: skip
    report = load(records)
    assert [failure["record"] for failure in report["failures"]] == [2, 3, 4, 5, 6]
    codes = [message.rpartition(" ")[2] for message in messages(report)]
    assert codes == ["23502)", "23502)", "23514)", "23503)", "23P01)"]
    assert sql("SELECT id FROM t ORDER BY id") == [(1,), (7,)]


@pytest.fixture
def restricted(server, database, sql):
    """Return the address of a role that may write table t, and create nothing."""
    sql(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text); DROP ROLE IF EXISTS restricted;"
        " CREATE ROLE restricted LOGIN; GRANT SELECT, INSERT, UPDATE ON t TO restricted"
    )
    yield f"postgresql://restricted@127.0.0.1:{server.port}/{database}"
    sql("DROP OWNED BY restricted; DROP ROLE restricted")


@pytest.mark.parametrize("key", [(), ("--key", "id")])
@pytest.mark.parametrize("has_ledger", [True, False])
def test_a_role_that_may_create_nothing_has_a_ledger_file(  # noqa: PLR0917 - by their names
    load, run, sql, restricted, tmp_path, key, has_ledger
):
    if has_ledger:  # of another role
        sql("CREATE TABLE other (id int); SELECT 1")
        load([{"id": 1}], table="other", name="other.jsonl")
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    report = load([{"id": 1}, {"id": 2}], *key, to=restricted, env=env)
    assert (report["exit_code"], report["records"]["written"]) == (0, 2)
    again = load([], *key, "--resume", to=restricted, env=env)
    assert again["files"]["skipped"] == 1
    (tmp_path / "b.jsonl").write_text('{"id": 3}')
    finished = run("b.jsonl", "--to", restricted, "--table", "t", *key, env=env)
    assert finished.code == 0
    told = " ".join((finished.stdout + finished.stderr).split())
    (path,) = (tmp_path / "state").rglob("t-*.ledger")
    assert f"the ledger is the file {path}" in told
    assert "loads these rows again" in told
    assert sql("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    # Also when the role may keep one in the database later on.
    sql("GRANT CREATE ON SCHEMA public TO restricted; SELECT 1")
    assert load([], *key, "--resume", to=restricted, env=env)["files"]["skipped"] == 1


def test_a_table_that_cannot_be_created_is_told_before_anything_is_read(
    run, files, restricted, tmp_path
):
    files({"a.json": '{"id": 1}'})
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    finished = run("a.json", "--to", restricted, "--table", "missing", env=env)
    assert finished.code == 2
    assert "there is no table missing, and this role may not create it" in finished.stderr


def test_ledger_files_of_two_databases_are_two(load, sql, server, restricted, tmp_path):
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    load([{"id": 1}], to=restricted, env=env)
    server.execute("DROP DATABASE IF EXISTS second")
    server.execute("CREATE DATABASE second")
    server.execute("CREATE TABLE t (id bigint); GRANT SELECT, INSERT ON t TO restricted", "second")
    second = restricted.rpartition("/")[0] + "/second"
    assert load([{"id": 1}], "--resume", to=second, env=env)["records"]["written"] == 1
    server.execute("DROP DATABASE second")


RECORDS = [
    {"id": 1, "v": "a"}, {"id": 2, "v": "b", "new": 1}, {"id": "x", "v": "c"},
    {"id": 4, "new": None}, {"id": 5.0, "v": 7}, {"id": 6.5}, {"id": 8},
]  # fmt: skip


@pytest.mark.parametrize("rows", ["1", "3", "100"])
def test_a_table_that_the_role_may_not_change_takes_what_fits(
    load, sql, restricted, tmp_path, rows
):
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    report = load(RECORDS, "--load-batch", rows, to=restricted, env=env)
    assert [failure["record"] for failure in report["failures"]] == [2, 3, 6]
    told = messages(report)
    assert "field 'new' is new, and the table stays as it is" in told[0]
    assert all("must be owner of table t" in message for message in told)
    assert not any("contract" in message for message in told)
    rows_there = [(1, "a"), (4, None), (5, "7"), (8, None)]
    assert sql("SELECT id, v FROM t ORDER BY id") == rows_there
    assert types(sql) == {"id": "bigint", "v": "text"}


def test_a_column_that_a_view_needs_takes_what_fits(load, sql):
    sql("CREATE TABLE t (id bigint, v text); CREATE VIEW ids AS SELECT id FROM t")
    report = load([{"id": 1}, {"id": "x"}, {"id": 2}])
    (message,) = messages(report)
    assert "used by a view" in message
    assert sql("SELECT id FROM t ORDER BY id") == [(1,), (2,)]
