package callout

import (
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// FuzzMessage: an answer of gRPC is a message or an error, whatever a server sends.
func FuzzMessage(f *testing.F) {
	f.Add(200, "0", "", []byte{0, 0, 0, 0, 2, 8, 1})
	f.Add(200, "7", "no%20way%", []byte{})
	f.Add(200, "0", "", []byte{1, 0, 0, 0, 1, 8})
	f.Add(503, "", "", []byte("down"))
	f.Fuzz(func(t *testing.T, status int, code, text string, body []byte) {
		r := Response{Status: status, Body: body}
		r.Trailers.Add([]byte("grpc-status"), []byte(code))
		r.Trailers.Add([]byte("grpc-message"), []byte(text))
		if err := r.message(&healthpb.HealthCheckResponse{}); err == nil && (status != 200 || len(body) < prefix) {
			t.Errorf("%d %q %q is a message", status, code, body)
		}
	})
}
