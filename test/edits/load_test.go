package edits

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/traffic"
)

// A load is requests at a constant rate, each at its time whatever becomes of the others,
// and the configurations that they may meet.
type load struct {
	m     *mesh
	stop  context.CancelFunc
	wg    sync.WaitGroup
	keep  *http.Transport
	fresh *http.Transport // a connection each: for a port that comes and goes

	mu      sync.Mutex
	configs []*config // as they were written; those before settled are in force nowhere
	settled int
	asked   int
	absent  int // that asked for what a configuration of the time did not have
	failed  []string
}

func (m *mesh) load(t *testing.T, first *config, rate int, seed uint64) *load {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &load{m: m, stop: stop, configs: []*config{first}, keep: &http.Transport{MaxIdleConnsPerHost: traffic.InFlight},
		fresh: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(l.end)
	l.wg.Go(func() { l.run(ctx, rate, rand.New(rand.NewPCG(seed, 1))) })
	return l
}

func (l *load) run(ctx context.Context, rate int, r *rand.Rand) {
	traffic.AtRate(ctx, rate, func(n int) func() {
		from, newest := l.now()
		to, slow := pick(r, newest.targets()), r.IntN(20) == 0
		proxy := pick(r, l.m.at(to.via))
		return func() {
			got, err := l.ask(n, proxy, to, slow)
			l.judge(n, from, proxy, to, got, err)
		}
	})
}

// now is the oldest configuration that may be in force, and the newest.
func (l *load) now() (int, *config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settled, l.configs[len(l.configs)-1]
}

// written is told of a configuration before anybody can know it, force of one that is in
// force everywhere.
func (l *load) written(c *config) (version int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.configs = append(l.configs, c)
	return len(l.configs) - 1
}

func (l *load) force(version int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled = max(l.settled, version)
}

// more waits until so many requests more have their answers.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	asked := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.asked
	}
	enough := asked() + n
	fixture.Eventually(t, "requests are answered", func() error {
		if asked() < enough {
			return errors.New("not enough")
		}
		return nil
	})
}

// ask sends a request that the client does not send twice and returns who has answered.
func (l *load) ask(n int, proxy *proxy, to target, slow bool) (int, error) {
	transport := l.keep
	if to.via == atMore {
		transport = l.fresh
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+proxy.address(to.via)+to.path, struct{ io.Reader }{bytes.NewReader([]byte("edits"))})
	if err != nil {
		return 0, err
	}
	req.ContentLength, req.Host = 5, to.host
	req.Header.Set("X-Number", strconv.Itoa(n))
	if slow {
		req.Header.Set("X-Slow", "1")
	}
	reply, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return 0, err
	}
	if reply.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %.100s", reply.Status, body)
	}
	return strconv.Atoi(strings.TrimPrefix(string(body), "backend "))
}

// judge finds whether one of the configurations of the time orders the answer.
func (l *load) judge(n, from int, proxy *proxy, to target, got int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	window := l.configs[from:]
	may := map[int]bool{}
	for _, routes := range window {
		for _, clusters := range window {
			set, there := routes.answers(to, clusters)
			if !there {
				l.absent++
				return
			}
			for b := range set {
				may[b] = true
			}
		}
	}
	what := fmt.Sprintf("%s: request %d to %s by %s, configurations %d to %d", time.Now().Format("15:04:05.000"), n, to, proxy.name, from, len(l.configs)-1)
	switch {
	case err != nil:
		l.failed = append(l.failed, fmt.Sprintf("%s: %v", what, err))
	case !may[got]:
		l.failed = append(l.failed, fmt.Sprintf("%s: backend %d answered, not one of %v", what, got, may))
	}
}

// end stops the load after the requests under way.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
	l.keep.CloseIdleConnections()
	l.fresh.CloseIdleConnections()
}

// report fails the test for what no configuration ordered.
func (l *load) report(t *testing.T) {
	t.Helper()
	l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d configurations, %d requests, %d of them for what came or went meanwhile, %d failed", len(l.configs), l.asked, l.absent, len(l.failed))
	if l.asked-l.absent < 10*len(l.configs) {
		t.Errorf("%d requests are no load", l.asked-l.absent)
	}
	if len(l.failed) > 0 {
		t.Errorf("%d requests met what no configuration ordered:\n%s", len(l.failed), strings.Join(l.failed[:min(len(l.failed), 10)], "\n"))
	}
}

// backends answer with their number, after a while where a request is slow.
func backends(t *testing.T) (ports []int) {
	t.Helper()
	for i := range backendCount {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if r.Header.Get("X-Slow") != "" {
				select {
				case <-time.After(300 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
			fmt.Fprintf(w, "backend %d", i)
		})}
		go func() { _ = server.Serve(ln) }()
		t.Cleanup(func() { _ = server.Close() })
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return slices.Clip(ports)
}
