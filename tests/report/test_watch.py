"""The page is served to this machine alone, and made again when the run has written something."""

from __future__ import annotations

from http.client import HTTPConnection

import pytest

from tests.report.constructed import serving, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", steps=4, evaluations=(0,), ended=False)


@pytest.fixture
def server(run):
    with serving(run) as server:
        yield server


def ask(server, path="/", host=None):
    connection = HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_only_this_machine_is_listened_to(server):
    assert server.server_address[0] == "127.0.0.1"


def test_the_page_knows_its_state_and_may_ask_for_it(server):
    status, text = ask(server)
    assert status == 200
    assert f'"watch":"{ask(server, "/state")[1]}"' in text
    assert "connect-src &#39;self&#39;" in text


def test_what_the_run_writes_makes_another_state_and_another_page(server, run):
    _, before = ask(server, "/state")
    assert ask(server)[1] == ask(server)[1]
    assert ask(server, "/state")[1] == before
    (run / "warnings.jsonl").write_text('{"step": 4, "name": "new", "text": "a new warning"}\n')
    assert ask(server, "/state")[1] != before
    assert "a new warning" in ask(server)[1]


def test_a_written_report_is_no_news(server, run):
    _, before = ask(server, "/state")
    (run / "report.html").write_text("")
    assert ask(server, "/state")[1] == before


def test_nothing_else_is_served(server):
    assert ask(server, "/config.yaml")[0] == 404
    assert ask(server, "/../run/config.yaml")[0] == 404


def test_a_name_of_another_site_that_leads_here_gets_nothing(server):
    assert ask(server, host=f"evil.example:{server.server_port}")[0] == 403
    assert ask(server, host="localhost:9999")[0] == 200  # through a tunnel


def test_a_file_as_it_is_being_written_is_asked_for_again(server, run):
    (run / "eval_results" / "eval_step_4.json").write_text('{"step"')
    status, text = ask(server)
    assert status == 503
    assert "eval_step_4.json: not JSON" in text
    assert 'http-equiv="refresh"' in text
