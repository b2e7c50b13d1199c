#!/usr/bin/env bash
# Checks deploy/kubernetes against the API's own schemas, and what they cannot see: that labels meet, that mounts and secrets are there, and
# that every container keeps to the restricted Pod Security Standard. No cluster is asked.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/real/cache.sh
venv kubernetes-validate-1.37.0 kubernetes-validate==1.37.0
bin=$cache/kubernetes-validate-1.37.0/bin
[ "${1:-}" != install ] || exit 0

"$bin/python" - <<'PYTHON'
import pathlib, yaml
here = pathlib.Path("deploy/kubernetes")
read = lambda name: yaml.safe_load((here / name).read_text())
listed = set(read("kustomization.yaml")["resources"])
there = {p.name for p in here.glob("*.yaml")} - {"kustomization.yaml", "aiops.yaml", "secret.example.yaml"}
assert listed == there, f"kustomization.yaml lists {sorted(listed)}, and there are {sorted(there)}"

pod = read("deployment.yaml")["spec"]["template"]
labels = pod["metadata"]["labels"].items()
selectors = {
    "deployment.yaml": read("deployment.yaml")["spec"]["selector"]["matchLabels"],
    "service.yaml": read("service.yaml")["spec"]["selector"],
    "poddisruptionbudget.yaml": read("poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
    "networkpolicy.yaml": read("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
}
for name, selector in selectors.items():
    assert selector and selector.items() <= labels, f"{name} selects {selector}, which no pod has"

spec = pod["spec"]
assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
volumes = {v["name"] for v in spec["volumes"]}
ports = {p["name"] for c in spec["containers"] for p in c["ports"]}
assert read("service.yaml")["spec"]["ports"][0]["targetPort"] in ports
for c in spec["containers"] + spec["initContainers"]:
    own = c["securityContext"]
    assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] and own["capabilities"] == {"drop": ["ALL"]}, c["name"]
    assert c["resources"]["limits"]["memory"], c["name"]
    mounted = {m["name"] for m in c["volumeMounts"]}
    assert mounted <= volumes, f"{c['name']} mounts {sorted(mounted - volumes)}"

kept = set(read("secret.example.yaml")["stringData"])
texts = (here / "aiops.yaml").read_text() + (here / "deployment.yaml").read_text()
for key in {w.split("/etc/aiops/secrets/")[1].strip("]},\"") for w in texts.split() if "/etc/aiops/secrets/" in w}:
    assert key in kept, f"{key} is not in secret.example.yaml"
print(f"kubernetes: {len(there)} resources fit together")
PYTHON

for file in deploy/kubernetes/*.yaml; do
  case ${file##*/} in kustomization.yaml | aiops.yaml) continue ;; esac
  "$bin/kubernetes-validate" --strict "$file" 2>&1 | sed 's/^INFO /kubernetes: /'
done
