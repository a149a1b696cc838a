"""helm.py lint CHART | helm.py render CHART [VALUES]: Helm's engine, without a cluster.

Helm's library renders only what it installs, so an API server of this process takes the objects.
Prints the manifest with its hooks, then the notes below a line of their own."""

import asyncio, http.server, json, os, sys, tempfile, threading

# Go reads the environment of the process's start.
if os.environ.get("HELM_DRIVER") != "memory":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "HELM_DRIVER": "memory"})

import helm_sdkpy
import yaml

KINDS = {
    "v1": {"configmaps": "ConfigMap", "pods": "Pod", "serviceaccounts": "ServiceAccount"},
    "apiextensions.k8s.io/v1": {"customresourcedefinitions": "CustomResourceDefinition"},
    "admissionregistration.k8s.io/v1": {
        "validatingadmissionpolicies": "ValidatingAdmissionPolicy",
        "validatingadmissionpolicybindings": "ValidatingAdmissionPolicyBinding"},
    "coordination.k8s.io/v1": {"leases": "Lease"},
    "apps/v1": {"daemonsets": "DaemonSet", "deployments": "Deployment"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "rbac.authorization.k8s.io/v1": {
        "clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding",
        "roles": "Role", "rolebindings": "RoleBinding"},
    "monitoring.coreos.com/v1": {"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"},
}


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, code=200):
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        path = self.path.split("?")[0].strip("/")
        version = path.removeprefix("apis/").removeprefix("api/")
        if path == "version":
            self.answer({"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        elif path == "api":
            self.answer({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "apis":
            self.answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": name.split("/")[0], "versions": [one], "preferredVersion": one}
                for name in KINDS if "/" in name
                for one in [{"groupVersion": name, "version": name.split("/")[1]}]]})
        elif version in KINDS:
            self.answer({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version,
                         "resources": [
                             {"name": name, "singularName": "", "namespaced": not name.startswith(("cluster", "custom", "validating")), "kind": kind,
                              "verbs": ["create", "get", "list", "patch"]}
                             for name, kind in KINDS[version].items()]})
        else:
            self.answer({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                         "reason": "NotFound", "code": 404}, 404)

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.answer(json.loads(self.rfile.read(length)), 201)


async def render(chart, values):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
        json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                   "clusters": [{"name": "c", "cluster": {
                       "server": f"http://127.0.0.1:{server.server_port}"}}],
                   "users": [{"name": "u", "user": {}}],
                   "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}, config)
        config.flush()
        client = helm_sdkpy.Configuration(namespace="kube-system", kubeconfig=config.name)
        release = await helm_sdkpy.Install(client).run(
            "redirector", chart, values=values, wait=False)
    print(release["manifest"])
    for hook in release.get("hooks") or []:
        print("---\n" + hook["manifest"])
    print("=== NOTES\n" + release["info"]["notes"])


async def lint(chart):
    result = await helm_sdkpy.Lint(helm_sdkpy.Configuration()).run(chart)
    print(json.dumps(result))


if sys.argv[1] == "lint":
    asyncio.run(lint(sys.argv[2]))
else:
    values = yaml.safe_load(open(sys.argv[3])) if len(sys.argv) > 3 else {}
    asyncio.run(render(sys.argv[2], values))
