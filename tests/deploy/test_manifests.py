"""Manifests: valid by the schemas that packages carry, and true to the daemon that they run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from priorityd.daemon.settings import Settings, variable_name

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ("1.30", kubernetes_validate.latest_version())
OPERATOR = Path(__file__).parent / "prometheus_operator"

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]


def manifests() -> list[dict[str, Any]]:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    assert {path.name for path in KUBERNETES.glob("*.yaml")} == {
        *kustomization["resources"],
        "kustomization.yaml",
    }
    return [
        manifest
        for name in kustomization["resources"]
        for manifest in yaml.safe_load_all((KUBERNETES / name).read_text())
    ]


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [each for each in manifests() if each["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifest("Deployment")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return dict(only)


def settings_names() -> set[str]:
    return {name for field in Settings.model_fields for name in variable_name(field).split(" or ")}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_objects_are_valid_and_say_nothing_unknown(version: str) -> None:
    own = [each for each in manifests() if not each["apiVersion"].startswith("monitoring.")]
    assert len(own) >= 6
    for each in own:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    wrong = manifest("Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def validate(directory: Path, objects: list[dict[str, Any]]) -> None:
    """Raises for an object that is not as Prometheus' operator wants it."""
    if not (directory / "node_modules").exists():
        for name in ("package.json", "validate.mjs"):
            shutil.copy(OPERATOR / name, directory)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=directory, check=True)
    command = ["node", "validate.mjs"]
    subprocess.run(
        command, cwd=directory, input=json.dumps(objects), text=True, capture_output=True, check=True
    )


def test_what_prometheus_operator_reads_is_valid(tmp_path: Path) -> None:
    good = [each for each in manifests() if each["apiVersion"].startswith("monitoring.")]
    validate(tmp_path, good)
    bad = [{**good[0], "spec": {**good[0]["spec"], "endpoints": "all"}}]
    with pytest.raises(subprocess.CalledProcessError):
        validate(tmp_path, bad)


def test_prometheus_operator_takes_the_monitor() -> None:
    # `validateScrapeIntervalAndTimeout` in its pkg/prometheus refuses a time-out above the interval.
    for endpoint in manifest("ServiceMonitor")["spec"]["endpoints"]:
        timeout, interval = (int(endpoint[name].removesuffix("s")) for name in ("scrapeTimeout", "interval"))
        assert timeout <= interval


def test_the_rules_become_objects_of_the_operators(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    typed = page.split("<!-- rules -->\n```sh\n")[1].split("```")[0]
    stand_in = f'kubectl() {{ cat >> "{tmp_path}/applied"; echo "---" >> "{tmp_path}/applied"; }}\n'
    subprocess.run(["sh", "-ec", stand_in + typed], cwd=ROOT, check=True)
    applied = [each for each in yaml.safe_load_all((tmp_path / "applied").read_text()) if each]
    assert [each["metadata"]["name"] for each in applied] == ["priorityd-recording", "priorityd-alerts"]
    for each, name in zip(applied, ("recording", "alerts"), strict=True):
        assert each["spec"] == yaml.safe_load((DEPLOY / "prometheus" / f"{name}.rules.yml").read_text())
    validate(tmp_path, applied)


def test_pods_keep_to_the_restricted_pod_security_standard() -> None:
    spec, security = pod(), container()["securityContext"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert "hostPath" not in str(spec["volumes"])
    assert {"configMap", "secret"} >= {
        kind for volume in spec["volumes"] for kind in volume if kind != "name"
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"] is True
    assert not {"privileged", "procMount", "seLinuxOptions"} & security.keys()


def test_selectors_find_the_pods() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for kind, path in (
        ("Deployment", ("spec", "selector", "matchLabels")),
        ("PodDisruptionBudget", ("spec", "selector", "matchLabels")),
        ("NetworkPolicy", ("spec", "podSelector", "matchLabels")),
        ("Service", ("spec", "selector")),
    ):
        selector: Any = manifest(kind)
        for key in path:
            selector = selector[key]
        assert selector
        assert selector.items() <= labels, kind
    monitored = manifest("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= manifest("Service")["metadata"]["labels"].items()


def test_one_of_two_may_go_at_a_time() -> None:
    replicas = manifest("Deployment")["spec"]["replicas"]
    assert replicas == 2
    budget = manifest("PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == replicas - 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "an outage of Supabase holds up no drain"


def test_the_daemon_is_asked_where_it_answers() -> None:
    (port,) = container()["ports"]
    assert port["containerPort"] == Settings.model_fields["http_port"].default
    paths = {name: container()[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    assert paths == {"livenessProbe": "/livez", "readinessProbe": "/readyz"}
    (endpoint,) = manifest("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in [each["name"] for each in manifest("Service")["spec"]["ports"]]


def test_a_stop_is_given_the_time_that_the_daemon_takes() -> None:
    assert pod()["terminationGracePeriodSeconds"] > Settings.model_fields["drain_seconds"].default


def test_settings_are_the_daemons() -> None:
    assert manifest("ConfigMap")["data"].keys() <= settings_names()


COMPOSE = DEPLOY / "container" / "compose.yaml"


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return services


def test_the_compose_file_is_valid(tmp_path: Path) -> None:
    checker = [
        str(Path(sys.executable).with_name("check-jsonschema")),
        "--builtin-schema",
        "vendor.compose-spec",
    ]
    subprocess.run([*checker, COMPOSE], check=True, capture_output=True)
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text().replace("read_only:", "readonly:"))
    assert subprocess.run([*checker, broken], check=False, capture_output=True).returncode == 1


def test_every_file_that_the_compose_file_mounts_is_there() -> None:
    for name, service in compose()["services"].items():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), (name, source)
    build = compose()["services"]["priorityd"]["build"]
    context = (COMPOSE.parent / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).is_file()


def test_every_service_of_the_compose_file_is_without_rights() -> None:
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} would be open to every network"


def test_secrets_of_the_compose_file_have_the_names_of_settings() -> None:
    assert compose()["secrets"].keys() <= settings_names()


def test_the_dockerfile_has_no_common_mistake() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    dockerfile = DEPLOY / "container" / "Dockerfile"
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
