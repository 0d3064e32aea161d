package control_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/grpc"

	"github.com/lateen-mesh/lateen/test/ports"
)

// collector answers opentelemetry.proto.collector.logs.v1.LogsService with what came to it;
// LogsData is its request and, empty, its answer on the wire.
func collector(t *testing.T) (port int, came <-chan *logspb.LogsData) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests := make(chan *logspb.LogsData, 100)
	export := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &logspb.LogsData{}
		if err := decode(in); err != nil {
			return nil, err
		}
		select {
		case requests <- in:
		default: // the test has seen enough
		}
		return &logspb.LogsData{}, nil
	}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "opentelemetry.proto.collector.logs.v1.LogsService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: export}}}, struct{}{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().(*net.TCPAddr).Port, requests
}

// TestOpenTelemetryLog: a provider envoyOtelAls has a proxy send its access log to a
// collector: the body is the text of a line, the labels are attributes.
func TestOpenTelemetryLog(t *testing.T) {
	t.Run("MC-049 extensionProviders[].envoyOtelAls", func(t *testing.T) {
		collects, came := collector(t)
		port := ports.One()
		p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes,
			"collector.yaml": fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: otel, namespace: observability}
spec:
  hosts: [otel.test]
  ports: [{number: 4317, name: grpc, protocol: GRPC}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, ports: {grpc: %d}}]
`, collects), "mesh.yaml": `
extensionProviders:
- name: otel
  envoyOtelAls:
    service: observability/otel.test
    port: 4317
    logName: shop
    logFormat:
      text: "%REQ(:METHOD)% %RESPONSE_CODE%"
      labels: {path: "%REQ(:PATH)%", host: "%REQ(:AUTHORITY)%"}
defaultProviders: {accessLogging: [otel]}
`}, nil)
		e := startEnvoy(t, "DELTA_GRPC", filepath.Join(p.sockets, "grpc"), gatewayNode(fmt.Sprintf("80=%d", port)))
		e.settled("otel.test", true)
		wait(t, func() bool {
			r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/a", port))
			if err != nil {
				return false
			}
			return r.Body.Close() == nil
		})
		var line *logspb.LogsData
		select {
		case line = <-came:
		case <-time.After(20 * time.Second):
			t.Fatal("no line came")
		}
		record := line.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()[0]
		got := map[string]string{"body": record.GetBody().GetStringValue()}
		for _, a := range record.GetAttributes() {
			got[a.GetKey()] = a.GetValue().GetStringValue()
		}
		want := map[string]string{"body": "GET 404", "path": "/a", "host": fmt.Sprintf("127.0.0.1:%d", port)}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
		if attributes := line.GetResourceLogs()[0].GetResource().GetAttributes(); named(attributes, "log_name") {
			t.Errorf("labels that nobody asked for: %v", attributes)
		}
	})
}

func named(attributes []*commonpb.KeyValue, key string) bool {
	for _, a := range attributes {
		if a.GetKey() == key {
			return true
		}
	}
	return false
}
