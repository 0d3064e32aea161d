package healthcheck_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/healthcheck"
	"github.com/lateen-mesh/lateen/proxy/http"
)

func build(fields string, failing *bool) (http.Filter, error) {
	a := &anypb.Any{}
	text := `{"@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck", ` + fields + `}`
	if err := protojson.Unmarshal([]byte(text), a); err != nil {
		return nil, err
	}
	return healthcheck.Factory(healthcheck.Deps{Service: "mine",
		Failing: func() bool { return *failing },
		Members: func(name string) (int, int, bool) { return 4, 3, name == "a" },
	}).New(a, http.Env{})
}

// ask sends a GET through the filter; what it does not answer gets a status of the upstream's.
func ask(f http.Filter, path string, upstream int) (answer string, s *http.Stream) {
	s = &http.Stream{}
	s.Begin(nil, 1, nil)
	s.Request.Method, s.Request.Path, s.Request.Body = []byte("GET"), []byte(path), http.NoBody
	answer = "upstream"
	if f.OnRequest(s, 0) == http.Continue {
		s.Response.Status = upstream
	} else if r, ok := s.TakeReply(); ok {
		s.Response.Status, answer = r.Status, r.Details
	}
	f.OnResponse(s, 0)
	return answer, s
}

func TestAnswers(t *testing.T) {
	const checks = `"headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}]`
	for _, c := range []struct {
		name, fields, path string
		failing            bool
		want               string
		status             int
	}{
		{"answers", `"pass_through_mode": false, ` + checks, "/healthz", false, "health_check_ok", 200},
		{"leaves others alone", `"pass_through_mode": false, ` + checks, "/x", false, "upstream", 201},
		{"without headers all requests are checks", `"pass_through_mode": false`, "/x", false, "health_check_ok", 200},
		{"fails", `"pass_through_mode": false, ` + checks, "/healthz", true, "health_check_failed", 503},
		{"fails for others, too", `"pass_through_mode": false, ` + checks, "/x", true, "upstream", 201},
		{"passes on", `"pass_through_mode": true, ` + checks, "/healthz", false, "upstream", 201},
		{"passes nothing on while failing", `"pass_through_mode": true, ` + checks, "/healthz", true, "health_check_failed", 503},
		{"enough are well", `"pass_through_mode": false, "cluster_min_healthy_percentages": {"a": {"value": 75.9}}`, "/", false, "health_check_ok_cluster_healthy", 200},
		{"too few are", `"pass_through_mode": false, "cluster_min_healthy_percentages": {"a": {"value": 76}}`, "/", false, "health_check_failed_cluster_unhealthy", 503},
		{"no such cluster", `"pass_through_mode": false, "cluster_min_healthy_percentages": {"b": {"value": 0}}`, "/", false, "health_check_failed_no_cluster_found", 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := build(c.fields, &c.failing)
			if err != nil {
				t.Fatal(err)
			}
			got, s := ask(f, c.path, 201)
			check := c.path == "/healthz" || !strings.Contains(c.fields, "headers")
			if got != c.want || s.Response.Status != c.status || s.Info.HealthCheck != check ||
				s.Response.Headers.Has("x-envoy-upstream-healthchecked-cluster") != check || s.Response.Headers.Has("x-envoy-immediate-health-check-fail") != c.failing {
				t.Errorf("got %s %d %v", got, s.Response.Status, s.Response.Headers)
			}
		})
	}
}

// What the upstream said holds until cache_time is over, counted from when the filter was made.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := false
		f, err := build(`"pass_through_mode": true, "cache_time": "10s"`, &failing)
		if err != nil {
			t.Fatal(err)
		}
		step := func(after time.Duration, upstream int, want string, status int) {
			t.Helper()
			time.Sleep(after)
			if got, s := ask(f, "/", upstream); got != want || s.Response.Status != status {
				t.Errorf("got %s %d, want %s %d", got, s.Response.Status, want, status)
			}
		}
		step(time.Second, 500, "upstream", 500)
		step(time.Second, 200, "health_check_cached", 500)
		step(7*time.Second, 200, "health_check_cached", 500)
		step(time.Second, 204, "upstream", 204)
		failing = true
		step(time.Second, 200, "health_check_failed", 503)
		failing = false
		step(time.Second, 200, "health_check_cached", 503)
		step(8*time.Second, 200, "upstream", 200)
	})
}

func TestRefused(t *testing.T) {
	for fields, want := range map[string]string{
		`"headers": []`: "PassThroughMode: value is required",
		`"pass_through_mode": false, "cache_time": "1s"`:                                         "cache_time_ms must not be set when path_through_mode is disabled",
		`"pass_through_mode": false, "headers": [{"name": ""}]`:                                  "Headers[0]",
		`"pass_through_mode": false, "cluster_min_healthy_percentages": {"a": {"value": 100.5}}`: "value must be inside range [0, 100]",
	} {
		failing := false
		if _, err := build(fields, &failing); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", fields, err, want)
		}
	}
}
