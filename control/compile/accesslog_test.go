package compile

import (
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// TestCollectedLogs: logs go to a collector where the proxy has the logger and sees the
// collector's service; elsewhere they are left out rather than refused by the proxy.
func TestCollectedLogs(t *testing.T) {
	objects, problems := config.DecodeYAML("input", []byte(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: otel, namespace: observability}
spec:
  hosts: [otel.test]
  ports: [{number: 4317, name: grpc, protocol: GRPC}]
  resolution: STATIC
  endpoints: [{address: 10.2.2.2}]
`))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	for name, c := range map[string]struct {
		provider   string
		extensions []string
		want       int
	}{
		"a proxy that has the logger":     {"{service: otel.test, port: 4317}", []string{extOpenTelemetryLog}, 1},
		"a proxy that lists nothing":      {"{service: otel.test, port: 4317}", nil, 1},
		"a proxy without the logger":      {"{service: otel.test, port: 4317}", []string{"envoy.access_loggers.file"}, 0},
		"a service of its namespace":      {"{service: observability/otel.test, port: 4317}", nil, 1},
		"a service of another namespace":  {"{service: other/otel.test, port: 4317}", nil, 0},
		"a service that is not there":     {"{service: nobody.test, port: 4317}", nil, 0},
		"a port that the service has not": {"{service: otel.test, port: 4318}", nil, 0},
	} {
		t.Run("MC-049 "+name, func(t *testing.T) {
			mc, problems := config.DecodeMeshConfig("mesh", []byte("extensionProviders: [{name: otel, envoyOtelAls: "+c.provider+"}]\ndefaultProviders: {accessLogging: [otel]}"))
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			p := ProxyWith(t, "sidecar~10.0.0.1~a.default~default.svc.cluster.local", c.extensions...)
			s := mesh.Build(config.NewSet(1, objects), mesh.Options{MeshConfig: mc})
			logs := accessLogs(s.MeshConfig, s.Scope(p), p)
			if len(logs) != c.want {
				t.Fatalf("%d logs, want %d", len(logs), c.want)
			}
			if c.want == 0 {
				return
			}
			got := logs[0]
			if got.Collector.Cluster != "outbound|4317||otel.test" || got.Collector.LogName != otelLogName || got.Text != textLogFormat {
				t.Errorf("%+v to %+v", got, got.Collector)
			}
		})
	}
}
