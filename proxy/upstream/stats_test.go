package upstream_test

import (
	"testing"

	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

func TestCountCode(t *testing.T) {
	store := stats.NewStore()
	scope := store.Scope("cluster").Scope("a")
	s := upstream.NewStats(scope)
	s.CountCode(503, false)
	s.CountCode(200, true)
	s.CountCode(999, false) // no class
	s.CountRetried(503)
	for name, want := range map[string]uint64{
		"upstream_rq_503": 1, "upstream_rq_5xx": 1, "upstream_rq_200": 1, "upstream_rq_completed": 3,
		"external.upstream_rq_503": 1, "external.upstream_rq_completed": 2, "internal.upstream_rq_200": 1, "internal.upstream_rq_completed": 1,
		"retry.upstream_rq_503": 1, "retry.upstream_rq_5xx": 1, "retry.upstream_rq_completed": 1,
	} {
		if got := scope.Counter(name).Value(); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}
