"""Mistakes that the chart must refuse, and how it must name them. They are tried in check.py."""

# What is laid over the production set, and what the refusal must say.
REFUSED = {
    "a grace below the sum": (
        {"edge.terminationGracePeriodSeconds": 120},
        "edge.terminationGracePeriodSeconds = 120 is shorter than going away takes: 235 s = preStop 10 + delay 0 + drain 200 + flush 15 + margin 10",
    ),
    "the same for control": ({"control.terminationGracePeriodSeconds": 29}, "30 s = preStop 10 + delay 0 + drain 0 + flush 10 + margin 10"),
    "a drain longer than the binary takes": ({"edge.drain.devicesPerSecond": 1}, "3600 s is the most"),
    "a shutdown set past the chart": ({"edge.extraEnv": [{"name": "ROOST_SHUTDOWN__DRAIN", "value": "1h"}]}, "would contradict the grace period"),
    "both bounds for disruptions": (
        {"edge.podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}},
        "one of minAvailable and maxUnavailable, not both",
    ),
    "production with a bundled Redis": ({"redis.existingSecret": "", "redis.bundled.enabled": True}, "production: give redis.existingSecret"),
    "production with made-up token keys": ({"auth.tokenKey.existingSecret": ""}, "production: give auth.tokenKey.existingSecret"),
    "production with made-up API keys": ({"auth.apiKeys.existingSecret": ""}, "production: give auth.apiKeys.existingSecret"),
    "a certificate for Redis without its key": ({"redis.tls.certKey": "tls.crt"}, "certKey and keyKey belong together"),
    "durability without replicas": ({"production": False, "redis.existingSecret": "", "redis.bundled.enabled": True, "redis.durability": "replicated"}, "the bundled one has neither"),
    "routes to a port that is not there": (
        {"edge.tls": {"existingSecret": "devices-tls", "plain": False}},
        "edge.tls.plain: a route or an Ingress ends TLS",
    ),
    "two ports with one number": ({"edge.tls": {"existingSecret": "devices-tls", "port": 80}}, "edge.tls.port: 80 is service.port already"),
    "an Origin with a path": ({"config.edge.allowed_origins": "https://a/b"}, "does not match pattern"),
    "no Redis at all": ({"production": False, "redis.existingSecret": ""}, "nodes meet in Redis"),
    "more pods at least than at most": ({"edge.autoscaling.minReplicas": 21}, "minReplicas = 21 is more than maxReplicas = 20"),
    "scaling by nothing": ({"edge.autoscaling.targetCPUUtilizationPercentage": None}, "nothing to scale by"),
    "KEDA without Prometheus": (
        {"edge.autoscaling": {"provider": "keda", "targetConnectionsPerPod": 1000}},
        "edge.autoscaling.keda.prometheusAddress",
    ),
    "a route without a gateway": ({"edge.route.parentRefs": []}, "name the Gateway"),
    "a gateway without a class": ({"gateway.enabled": True}, "className and tlsSecret are needed"),
    "a typo at the top": ({"egde": {}}, "additional properties 'egde' not allowed"),
    "a typo in a role": ({"edge.replcas": 3}, "additional properties 'replcas' not allowed"),
    "a typo in a probe": ({"edge.livenessProbe.periodSecond": 3}, "additional properties 'periodSecond' not allowed"),
    "a typo in roost.toml": ({"config.edge.max_connection": 3}, "additional properties 'max_connection' not allowed"),
    "a wrong type": ({"edge.replicas": "two"}, "got string, want integer"),
    "a wrong duration": ({"config.store.lease": "10 seconds"}, "does not match pattern"),
    "a digest that is none": ({"image.digest": "sha256:12"}, "does not match pattern"),
    "a label that selects pods": ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "invalid propertyName"),
}
