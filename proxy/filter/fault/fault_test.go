package fault_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/fault"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(t *testing.T, text string) *anypb.Any {
	t.Helper()
	if text != "" {
		text = "," + text
	}
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"`+text+`}`), &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

type fixture struct {
	http.Filter
	stats *stats.Scope
}

func newFixture(t *testing.T, text string) fixture {
	t.Helper()
	scope := stats.NewStore().Scope("http.test.")
	f, err := fault.Factory().New(config(t, text), http.Env{Stats: scope})
	if err != nil {
		t.Fatal(err)
	}
	return fixture{f, scope.Scope("fault")}
}

// stream is a request with the given headers; done ends it, nil for never.
func stream(done <-chan struct{}, headers ...string) *http.Stream {
	s := &http.Stream{}
	s.Begin(nil, 1, done)
	s.Info.Cluster = "outbound|80||a.test"
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		s.Request.Headers.Add([]byte(name), []byte(value))
	}
	return s
}

const (
	always    = `"percentage":{"numerator":1000000,"denominator":"MILLION"}`
	abort503  = `"abort":{"httpStatus":503,` + always + `}`
	delayASec = `"delay":{"fixedDelay":"1s",` + always + `}`
)

func TestAbort(t *testing.T) {
	for _, c := range []struct {
		id, config string
		headers    []string
		want       string // status, gRPC status and body; "" goes on
	}{
		{"WI-014 VS-057 status, body, details and flag", abort503, nil, "503 -1 fault filter abort"},
		{"VS-058 gRPC status", `"abort":{"grpcStatus":14,` + always + `}`, nil, "200 14 fault filter abort"},
		{"body of its own", `"abort":{"httpStatus":500,"responseBody":"x",` + always + `}`, nil, "500 -1 x"},
		{"VS-060 no percentage is none", `"abort":{"httpStatus":503}`, nil, ""},
		{"by header", `"abort":{"headerAbort":{},` + always + `}`, []string{"x-envoy-fault-abort-request: 418"}, "418 -1 fault filter abort"},
		{"by header, gRPC", `"abort":{"headerAbort":{},` + always + `}`, []string{"x-envoy-fault-abort-grpc-request: 5"}, "200 5 fault filter abort"},
		{"by header, not asked", `"abort":{"headerAbort":{},` + always + `}`, nil, ""},
		{"by header, not a status", `"abort":{"headerAbort":{},` + always + `}`, []string{"x-envoy-fault-abort-request: 100"}, ""},
		{"by header, fewer", `"abort":{"headerAbort":{},` + always + `}`, []string{"x-envoy-fault-abort-request: 418", "x-envoy-fault-abort-request-percentage: 0"}, ""},
		{"cluster", abort503 + `,"upstreamCluster":"outbound|80||a.test"`, nil, "503 -1 fault filter abort"},
		{"another cluster", abort503 + `,"upstreamCluster":"b"`, nil, ""},
		{"headers", abort503 + `,"headers":[{"name":"end-user","stringMatch":{"exact":"jason"}}]`, []string{"End-User: jason"}, "503 -1 fault filter abort"},
		{"other headers", abort503 + `,"headers":[{"name":"end-user","stringMatch":{"exact":"jason"}}]`, []string{"end-user: tom"}, ""},
		{"node", abort503 + `,"downstreamNodes":["n"]`, []string{"x-envoy-downstream-service-node: n"}, "503 -1 fault filter abort"},
		{"another node", abort503 + `,"downstreamNodes":["n"]`, nil, ""},
		{"nothing configured", ``, nil, ""},
	} {
		t.Run(c.id, func(t *testing.T) {
			f := newFixture(t, c.config)
			s := stream(nil, c.headers...)
			verdict := f.OnRequest(s, 0)
			reply, ok := s.TakeReply()
			got := ""
			if ok {
				got = fmt.Sprintf("%d %d %s", reply.Status, reply.GRPCStatus, reply.Body)
			}
			if got != c.want || (verdict == http.Replied) != ok {
				t.Fatalf("verdict %v, got %q, want %q", verdict, got, c.want)
			}
			if ok && (reply.Details != "fault_filter_abort" || f.stats.Counter("aborts_injected").Value() != 1) {
				t.Errorf("details %q, %d aborts &fate{}", reply.Details, f.stats.Counter("aborts_injected").Value())
			}
			if ok {
				s.Info.Flags.Set(reply.Flag)
				if s.Info.Flags.String() != "FI" {
					t.Errorf("flags %s", s.Info.Flags)
				}
			}
		})
	}
}

func TestDelay(t *testing.T) {
	for _, c := range []struct {
		id, config string
		headers    []string
		want       time.Duration
	}{
		{"VS-053 fixed delay", delayASec, nil, time.Second},
		{"VS-054 no percentage is no delay", `"delay":{"fixedDelay":"1s"}`, nil, 0},
		{"by header", `"delay":{"headerDelay":{},` + always + `}`, []string{"x-envoy-fault-delay-request: 250"}, 250 * time.Millisecond},
		{"by header, not asked", `"delay":{"headerDelay":{},` + always + `}`, nil, 0},
		{"by header, fewer", `"delay":{"headerDelay":{},` + always + `}`, []string{"x-envoy-fault-delay-request: 250", "x-envoy-fault-delay-request-percentage: 0"}, 0},
	} {
		t.Run(c.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, c.config)
				s := stream(nil, c.headers...)
				start := time.Now()
				verdict := f.OnRequest(s, 0)
				if took := time.Since(start); took != c.want || verdict != http.Continue {
					t.Errorf("took %s with verdict %v, want %s", took, verdict, c.want)
				}
				if flagged := s.Info.Flags.String() == "DI"; flagged != (c.want > 0) {
					t.Errorf("flags %s", s.Info.Flags)
				}
			})
		})
	}
	t.Run("WI-015 VS-061 delay, then abort, one active fault until the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, delayASec+","+abort503)
			s := stream(nil)
			active := f.stats.Gauge("active_faults")
			go func() {
				time.Sleep(500 * time.Millisecond)
				if active.Value() != 1 {
					t.Errorf("%d active while it waits", active.Value())
				}
			}()
			start := time.Now()
			if f.OnRequest(s, 0) != http.Replied || time.Since(start) != time.Second {
				t.Errorf("not aborted after a second but after %s", time.Since(start))
			}
			if active.Value() != 1 {
				t.Errorf("%d active after delay and abort", active.Value())
			}
			f.Filter.(http.Ender).OnEnd(s, 0)
			if active.Value() != 0 {
				t.Errorf("%d active at the end", active.Value())
			}
		})
	})
	t.Run("a client that leaves ends the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			done := make(chan struct{})
			time.AfterFunc(100*time.Millisecond, func() { close(done) })
			s, start := stream(done), time.Now()
			verdict := newFixture(t, delayASec).OnRequest(s, 0)
			if _, replied := s.TakeReply(); verdict != http.Replied || replied || time.Since(start) != 100*time.Millisecond {
				t.Errorf("verdict %v, replied %v after %s", verdict, replied, time.Since(start))
			}
		})
	})
}

// TestFaultsAtOnce: requests that come at once are not more faults than the bound allows.
func TestFaultsAtOnce(t *testing.T) {
	const bound, requests = 8, 200
	f := newFixture(t, abort503+`,"maxActiveFaults":8`)
	var aborted atomic.Int64
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			if f.OnRequest(stream(nil), 0) == http.Replied {
				aborted.Add(1)
			}
		})
	}
	wg.Wait()
	if n := aborted.Load(); n != bound {
		t.Errorf("%d active faults, want %d", n, bound)
	}
}

func TestLimit(t *testing.T) {
	f := newFixture(t, abort503+`,"maxActiveFaults":1`)
	first, second, third := stream(nil), stream(nil), stream(nil)
	if f.OnRequest(first, 0) != http.Replied || f.OnRequest(second, 0) != http.Continue {
		t.Error("the second is aborted while the first is active")
	}
	if n := f.stats.Counter("faults_overflow").Value(); n != 1 {
		t.Errorf("%d overflows", n)
	}
	f.Filter.(http.Ender).OnEnd(second, 0)
	f.Filter.(http.Ender).OnEnd(first, 0)
	if f.OnRequest(third, 0) != http.Replied {
		t.Error("the third is not aborted after the first has ended")
	}
}

func TestOverride(t *testing.T) {
	f := newFixture(t, `"abort":{"httpStatus":500,`+always+`},"filterMetadata":{"k":"filter"}`)
	override, err := fault.Factory().Override(config(t, abort503+`,"filterMetadata":{"k":"route"}`), http.Env{})
	if err != nil {
		t.Fatal(err)
	}
	s := stream(nil)
	s.SetOverrides(1, func(http.Slot) any { return override })
	f.OnRequest(s, 0)
	if reply, _ := s.TakeReply(); reply.Status != 503 || s.Info.Metadata[fault.Name]["k"] != "route" {
		t.Errorf("status %d, metadata %v", reply.Status, s.Info.Metadata)
	}
}

func TestDisabledByRoute(t *testing.T) {
	f, s := newFixture(t, abort503), stream(nil)
	s.SetOverrides(1, func(http.Slot) any { return route.Disabled{} })
	if f.OnRequest(s, 0) != http.Continue {
		t.Error("aborted")
	}
}

func TestPercentage(t *testing.T) {
	t.Run("VS-060 a share in a million", func(t *testing.T) {
		f := newFixture(t, `"abort":{"httpStatus":503,"percentage":{"numerator":300000,"denominator":"MILLION"}}`)
		aborted := 0
		for range 10_000 {
			if f.OnRequest(stream(nil), 0) == http.Replied {
				aborted++
			}
		}
		if aborted < 2700 || aborted > 3300 { // more than six standard deviations
			t.Errorf("%d of 10000, want about 3000", aborted)
		}
	})
}

func TestRefused(t *testing.T) {
	for want, text := range map[string]string{
		"LimitType":             `"responseRateLimit":{"percentage":{"numerator":1}}`,
		"HttpStatus":            `"abort":{"httpStatus":100}`,
		"ErrorType":             `"abort":{}`,
		"FixedDelay":            `"delay":{"fixedDelay":"0s"}`,
		"headers[0]: a: custom": `"headers":[{"name":"a","stringMatch":{"custom":{"name":"x","typedConfig":{}}}}]`,
	} {
		_, err := fault.Factory().New(config(t, text), http.Env{Stats: stats.NewStore().Scope("")})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func TestWithoutFaultNothingIsAllocated(t *testing.T) {
	f, s := newFixture(t, ``), stream(nil)
	if n := testing.AllocsPerRun(100, func() { f.OnRequest(s, 0); f.Filter.(http.Ender).OnEnd(s, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
