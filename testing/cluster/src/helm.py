"""helm.py install|upgrade|test|uninstall CHART VALUES: Helm's engine on the cluster of KUBECONFIG,
in kube-system. VALUES is JSON. Waits until everything is ready."""

import asyncio, json, os, sys

import helm_sdkpy

verb, chart, values = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = helm_sdkpy.Configuration(namespace="kube-system", kubeconfig=os.environ["KUBECONFIG"])
if verb == "install":
    asyncio.run(helm_sdkpy.Install(client).run("redirector", chart, values=values, timeout=120))
elif verb == "upgrade":
    # Only Debian's version is without server-side apply.
    asyncio.run(helm_sdkpy.Upgrade(client).run(
        "redirector", chart, values=values, timeout=120, reuse_values=True,
        server_side_apply=False))
elif verb == "test":
    release = asyncio.run(helm_sdkpy.ReleaseTest(client).run("redirector"))
    print(json.dumps(release))
else:
    asyncio.run(helm_sdkpy.Uninstall(client).run("redirector", timeout=120))
