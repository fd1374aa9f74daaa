"""Dockerfile, compose file, systemd unit and Kubernetes manifest, held against the server."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from embellama.config import CONFIG_FILE_VARIABLE, EngineConfig, ModelConfig
from embellama.hub.store import CACHE_VARIABLE
from embellama.server.app import ENDPOINTS
from embellama.server.settings import ServerConfig, seconds
from tests.integration.server.running import serving

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

VARIABLES = {
    *ServerConfig.environment_variables.values(),
    *EngineConfig.environment_variables.values(),
    *ModelConfig.environment_variables.values(),
    CACHE_VARIABLE,
    CONFIG_FILE_VARIABLE,
}
DEFAULTS = {name: field.default for name, field in ServerConfig.model_fields.items()}


def ours(names):
    return {name for name in names if name.startswith("EMBELLAMA_")}


# ── the image ────────────────────────────────────────────────────────────────────────────────


def instructions():
    """Yield (stage, instruction, argument) of the Dockerfile, lines joined, comments left out."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    stage = None
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, argument = line.strip().partition(" ")
        if name == "FROM":
            stage = argument.split()[-1]
        yield stage, name, " ".join(argument.split())


INSTRUCTIONS = list(instructions())
STAGES = [(argument.split()[0], stage) for stage, name, argument in INSTRUCTIONS if name == "FROM"]


def arguments(name, stage="runtime"):
    return [argument for where, what, argument in INSTRUCTIONS if (where, what) == (stage, name)]


def image_variables(stage="runtime"):
    pairs = (word.partition("=") for line in arguments("ENV", stage) for word in shlex.split(line))
    return {name: value for name, _, value in pairs}


def build_arguments():
    pairs = (
        argument.partition("=")
        for _, name, argument in INSTRUCTIONS
        if name == "ARG" and "=" in argument
    )
    return {name: value for name, _, value in pairs}


def health_check(stage="runtime"):
    (line,) = arguments("HEALTHCHECK", stage)
    return yaml.safe_load(line.partition(" CMD ")[2])


def test_a_build_without_a_target_makes_the_cpu_image():
    names = [name for _, name in STAGES]
    assert names[-1] == "cpu"
    assert {"cpu", "cuda", "dev"} <= set(names)
    assert ("runtime", "cuda") in STAGES


def test_bases_are_stages_or_have_a_tag():
    known = set()
    for base, name in STAGES:
        assert base in known or re.search(r":(?!latest$).+$", base), base
        known.add(name)
    copied = re.findall(r"--from=(\S+)", " ".join(line for *_, line in INSTRUCTIONS))
    assert set(copied) <= known


def test_the_image_runs_as_a_number_that_is_not_root():
    assert arguments("USER") == ["10001:10001"]
    assert "USER" not in {name for stage, name, _ in INSTRUCTIONS if stage in ("cuda", "cpu")}


def test_variables_of_the_image_are_settings():
    for stage in ("runtime", "dev"):
        assert ours(image_variables(stage)) <= VARIABLES
    set_here = image_variables()
    assert set_here["EMBELLAMA_HOST"] == "0.0.0.0"
    assert arguments("EXPOSE") == [set_here["EMBELLAMA_PORT"]] == [str(DEFAULTS["port"])]
    (volume,) = arguments("VOLUME")
    assert set_here[CACHE_VARIABLE].startswith(volume + "/")
    assert set_here["HF_HOME"].startswith(volume + "/")


def test_versions_are_the_projects():
    given = build_arguments()
    assert given["VERSION"] == PROJECT["version"]
    wanted = {
        requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])
    }
    assert wanted["llama-cpp-python"].specifier.contains(given["LLAMA_CPP_PYTHON_VERSION"])
    assert set(given["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])
    python = f"Programming Language :: Python :: {given['PYTHON_VERSION']}"
    assert python in PROJECT["classifiers"]


def test_llama_cpp_is_compiled_for_other_cpus_too():
    for stage in ("llama", "llama-cuda"):
        line = next(line for line in arguments("RUN", stage) if "llama-cpp-python==" in line)
        assert "-DGGML_NATIVE=OFF" in line
        # libraries that are installed beside the wheel are not in pip's cache
        assert "-DGGML_BACKEND_DL=ON" in line
        assert "--no-cache-dir" in line
    assert "-DGGML_CPU_ALL_VARIANTS=ON" in " ".join(arguments("RUN", "llama"))


def is_sent(path):
    """Tell whether a path reaches the builder, by the patterns of .dockerignore."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        places = [path, *map(str, Path(path).parents)]
        if pattern.startswith("**/"):
            pattern, places = pattern.removeprefix("**/"), Path(path).parts
        if line and not line.startswith("#") and any(fnmatch(part, pattern) for part in places):
            sent = line.startswith("!")
    return sent


def test_what_is_copied_is_there_and_sent():
    copied = [
        source
        for stage in ("build", "dev")
        for line in arguments("COPY", stage)
        for source in line.split()[:-1]
    ]
    assert len(copied) > 5
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source == "." or is_sent(source), source
    assert is_sent("embellama/server/app.py")
    assert not any(map(is_sent, (".git/config", ".env", "embellama/__pycache__/x.pyc", "m.gguf")))


# ── compose ──────────────────────────────────────────────────────────────────────────────────


def composed():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def test_the_compose_file_agrees_with_the_image():
    document = composed()
    service = document["services"]["embellama"]
    assert (DEPLOY / service["build"]["context"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    assert service["build"]["target"] in {name for _, name in STAGES}
    assert ours(service["environment"]) == set(service["environment"])
    assert set(service["environment"]) <= VARIABLES
    (mapping,) = service["ports"]
    address, outside, inside = mapping.split(":")
    assert (address, outside, inside) == ("127.0.0.1", "8080", *arguments("EXPOSE"))
    (volume,) = service["volumes"]
    assert volume == f"models:{arguments('VOLUME')[0]}"
    assert "models" in document["volumes"]


def test_the_compose_files_keys_are_mounted_where_they_are_read():
    document = composed()
    service = document["services"]["embellama"]
    (secret,) = service["secrets"]
    assert service["environment"]["EMBELLAMA_API_KEY_FILE"] == f"/run/secrets/{secret}"
    assert not (ROOT / document["secrets"][secret]["file"]).is_relative_to(ROOT)


def test_the_compose_file_waits_longer_than_the_server():
    service = composed()["services"]["embellama"]
    given = seconds(service["environment"]["EMBELLAMA_SHUTDOWN_TIMEOUT"])
    assert seconds(service["stop_grace_period"]) > given
    assert service["read_only"] is True
    assert service["cpus"] == int(service["environment"]["EMBELLAMA_N_THREADS"])


# ── systemd ──────────────────────────────────────────────────────────────────────────────────


def unit():
    """Return the unit's settings: a list of values for each name."""
    found = {}
    for line in (DEPLOY / "embellama.service").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_units_variables_and_times_agree_with_the_server():
    settings = unit()
    variables = dict(value.split("=", 1) for value in settings["Environment"])
    assert ours(variables) <= VARIABLES
    (credential,) = settings["LoadCredential"]
    assert variables["EMBELLAMA_API_KEY_FILE"] == "%d/" + credential.partition(":")[0]
    (state,) = settings["StateDirectory"]
    assert variables[CACHE_VARIABLE].startswith(f"%S/{state}/")
    assert seconds(settings["TimeoutStopSec"][0]) > DEFAULTS["shutdown_timeout_s"]
    assert settings["Restart"] == ["on-failure"]
    assert settings["DynamicUser"] == ["yes"]


def test_systemd_finds_no_fault_with_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    text = (DEPLOY / "embellama.service").read_text(encoding="utf-8")
    here = tmp_path / "embellama.service"
    here.write_text(text.replace("/opt/embellama/bin/embellama", sys.executable), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(here)],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────


def manifest():
    text = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def pod():
    return manifest()["Deployment"]["spec"]["template"]["spec"]


def test_the_pods_configuration_is_one(tmp_path, monkeypatch):
    path = tmp_path / "embellama.toml"
    path.write_text(manifest()["ConfigMap"]["data"]["embellama.toml"], encoding="utf-8")
    monkeypatch.setenv(CONFIG_FILE_VARIABLE, str(path))
    server, model = ServerConfig(), ModelConfig()
    (container,) = pod()["containers"]
    assert model.n_threads == int(container["resources"]["requests"]["cpu"])
    assert server.models == ("minilm",)
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod()["terminationGracePeriodSeconds"] > before + server.shutdown_timeout_s


def test_probes_ask_paths_that_need_no_key():
    (container,) = pod()["containers"]
    is_open = {endpoint.path for endpoint in ENDPOINTS if endpoint.access == "open"}
    asked = {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert set(asked.values()) <= is_open
    assert asked["livenessProbe"] == "/health"  # /ready is 503 while a model loads
    (port,) = container["ports"]
    assert str(port["containerPort"]) == arguments("EXPOSE")[0]


def test_the_pod_agrees_with_the_image():
    (container,) = pod()["containers"]
    user, _, group = arguments("USER")[0].partition(":")
    context = pod()["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    assert {entry["name"] for entry in container["env"]} <= VARIABLES
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["models"] == arguments("VOLUME")[0]
    assert set(mounts) == {volume["name"] for volume in pod()["volumes"]}
    for entry in container["env"]:
        assert Path(entry["value"]).parent.as_posix() in mounts.values()


def test_kubernetes_sets_no_variables_of_ours():
    # a service called embellama would set EMBELLAMA_PORT to "tcp://10.0.0.1:80"
    assert f"{manifest()['Service']['metadata']['name'].upper()}_PORT" in VARIABLES
    assert pod()["enableServiceLinks"] is False


# ── health checks ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tiny_server(tiny_path):
    with serving(models={"tiny": tiny_path}) as running:
        yield running


def exit_status(command, port):
    """Run a health check as the container would, with this Python and at this port."""
    assert command[0] == "python"
    words = [word.replace("8080", str(port)) for word in command[1:]]
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "EMBELLAMA_PORT": str(port), "HTTP_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode


def checks():
    test = composed()["services"]["embellama"]["healthcheck"]["test"]
    assert test[0] == "CMD"
    return [
        pytest.param(health_check(), id="image"),
        pytest.param(test[1:], id="compose"),
    ]


@pytest.mark.parametrize("command", checks())
def test_a_health_check_tells_ready_from_not(command, tiny_server):
    port = tiny_server.url.rpartition(":")[2]
    assert exit_status(command, port) == 0
    tiny_server.service.is_stopping = True
    try:
        assert exit_status(command, port) == 1
    finally:
        tiny_server.service.is_stopping = False
    assert exit_status(command, 1) == 1  # nobody listens there


def test_the_images_health_check_speaks_tls(tiny_path, tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    subprocess.run(
        [*made.split(), "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        capture_output=True,
        timeout=60,
        check=True,
    )
    config = {"tls_cert": certificate, "tls_key": key}
    with serving(config, models={"tiny": tiny_path}, wait=False) as running:
        port = running.url.rpartition(":")[2]
        monkeypatch.setenv("EMBELLAMA_TLS_CERT", str(certificate))
        for _ in range(100):
            if exit_status(health_check(), port) == 0:
                break
        else:
            pytest.fail("never healthy")
