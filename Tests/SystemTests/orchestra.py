"""Two sites with agents and an orchestrator or two, over the real programs: what test_orchestrator.py plays on."""
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import urllib.parse
import uuid
from pathlib import Path

import endpoints
import lab

ORCHESTRATOR = str(lab.BUILD / "turntable-orchestrator")
MEMORY = "1G"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, dict(response.getheaders()), response.read()

    @property
    def json(self):
        return json.loads(self.body)


class API:
    """An HTTPS client with a certificate, and nothing of ours in it."""

    def __init__(self, url, keys, namespace=None):
        self.url, self.namespace = urllib.parse.urlsplit(url), namespace
        self.context = ssl.create_default_context(cafile=f"{keys}/authority.pem")
        self.context.load_cert_chain(f"{keys}/host.pem", f"{keys}/host.key")

    def ask(self, method, path, body=None, headers=()):
        connection = http.client.HTTPSConnection(self.url.hostname, self.url.port, context=self.context, timeout=20)
        if self.namespace:
            connection._create_connection = self._connect
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {**({"content-type": "application/json"} if text else {}), **dict(headers)})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def _connect(self, address, timeout, _source):
        made = endpoints.socket_in(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(timeout)
        made.connect(address)
        return made

    def get(self, path, **options):
        return self.ask("GET", path, **options).json


class Etcd:
    """A real etcd of this computer, in the lab's directory."""

    def __init__(self, stage):
        ports = [free_port(), free_port()]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.arguments = [
            "etcd", "--data-dir", stage.directory / "etcd", "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
            "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}", "--logger", "zap",
            "--unsafe-no-fsync"]
        self.stage, self.address = stage, f"etcd://127.0.0.1:{ports[0]}"
        self.port = ports[0]
        self.start()

    def start(self):
        arguments = list(self.arguments)
        if not supports(arguments[0], "--unsafe-no-fsync"):
            arguments.remove("--unsafe-no-fsync")
        self.program = self.stage.start(*arguments)
        lab.wait_for("etcd", self.answers)

    def answers(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            connection.request("GET", "/health")
            return b"true" in connection.getresponse().read()
        except OSError:
            return False


def supports(program, option):
    done = subprocess.run([program, "--help"], capture_output=True, text=True)
    return option in done.stdout + done.stderr


class Stage(lab.Lab):
    """A lab with the sites "source" and "target", each with an agent, and orchestrators of one domain."""

    def __init__(self):
        super().__init__()
        self.orchestrators, self.agents = {}, {}

    def processes(self):
        """Also those that name the directory itself, as receivers do."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if f"{self.directory}" in line:
                        found[int(entry.name)] = line
        return found

    def keys(self, host):
        return lab.keys() / host

    def agent(self, side, memory=MEMORY, processors=8, options=()):
        run_directory = self.run_directory(side)
        run_directory.mkdir(exist_ok=True)
        port = self.agents[side].port if side in self.agents else 0
        program = self.start(
            ORCHESTRATOR, "agent", "--json", "--listen", f"127.0.0.1:{port}", "--receive", "127.0.0.1", "--orchestrator", "third.test", "--memory", memory,
            "--processors", processors, "--allow-path", lab.GUESTS, "--allow-path", self.directory, "--turntable", lab.TURNTABLE, "--run-dir", run_directory,
            "--state-dir", f"{run_directory}-state", *options)
        program.port = int(program.wait_event("listening")["address"].rsplit(":", 1)[1])
        self.agents[side] = program
        return program

    def orchestrator(self, name="one", store=None, operators=("third.test",), environment=None, port=0, options=()):
        port = self.orchestrators[name].port if name in self.orchestrators else port
        options = options or getattr(self.orchestrators.get(name), "extra", ())
        program = self.start(
            ORCHESTRATOR, "serve", "--json", "--listen", f"127.0.0.1:{port}", "--store", store or self.directory / "orchestrator.sqlite", "--domain", "lab",
            *(word for who in operators for word in ("--operator", who)), "--keys", self.keys("third"), *options,
            environment={"TURNTABLE_LOG": "info", **(environment or {})})
        program.port = int(program.wait_event("listening")["address"].rsplit(":", 1)[1])
        program.api = API(f"https://127.0.0.1:{program.port}", self.keys("third"))
        program.extra = options
        self.orchestrators[name] = program
        return program

    @property
    def api(self):
        return next(iter(self.orchestrators.values())).api

    def sites(self, api=None):
        """Both agents, described to the domain."""
        for side in ("source", "target"):
            if side not in self.agents:
                self.agent(side)
            answer = (api or self.api).ask("PUT", f"/v1/sites/{side}", {"agent": f"https://127.0.0.1:{self.agents[side].port}"})
            assert answer.status in (200, 201), answer.body

    def wait_site(self, site, api=None):
        """Until the orchestrator has heard from its agent."""
        lab.wait_for(f"the agent of {site}", lambda: (api or self.api).get(f"/v1/sites/{site}")["isReachable"])

    def vm(self, name="m"):
        answer = self.api.ask("GET", f"/v1/vms/{name}")
        return answer.json if answer.status == 200 else None

    def wait_vm(self, site, name="m", seconds=lab.WAIT_SECONDS):
        return lab.wait_for(f"{name} at {site}", lambda: (vm := self.vm(name)) and vm["rightToRun"]["site"] == site and vm["state"] == "here" and vm, seconds)

    def migrate(self, target="target", name="m", api=None, expect=201, **members):
        answer = (api or self.api).ask("POST", "/v1/migrations", {"vm": name, "target": target, "downtimeMilliseconds": 1000, **members})
        assert answer.status == expect, (answer.status, answer.body)
        return answer.json

    def migration(self, name, api=None):
        return (api or self.api).get(f"/v1/migrations/{name}")

    def wait_migration(self, name, condition=lambda m: m["state"] in ("completed", "failed", "cancelled"), seconds=60, api=None):
        def look():
            try:
                now = self.migration(name, api)
            except OSError:
                return None
            return condition(now) and now
        return lab.wait_for(f"migration {name}", look, seconds)

    def ctl(self, *arguments, **options):
        urls = ",".join(f"https://127.0.0.1:{each.port}" for each in self.orchestrators.values())
        return self.turntable(
            "ctl", *arguments, environment={"TURNTABLE_ORCHESTRATOR": urls, "TURNTABLE_KEYS": str(self.keys("third"))}, **options)


def identifier():
    return str(uuid.uuid4())
