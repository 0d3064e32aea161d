package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/local"
	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/test/ports"
)

var (
	rollings    = flag.Int("rollings", 3, "how often TestRollingRestarts restarts each service")
	rollingRate = flag.Int("rolling-rate", 200, "requests per second meanwhile")
)

// TestRollingRestarts replaces the pods of Bookinfo's services one after another, with `kubectl
// rollout restart`, while clients ask for the product page through the gateway. No request
// fails, and no page lacks a part: the others know that a pod leaves before it does.
func TestRollingRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("rolling restarts take their time: not in short runs")
	}
	bin := engineDir(t)
	var refusal *namespace.Refusal
	if _, err := namespace.Probe(t.Context(), filepath.Join(bin, "lateen-engine")); errors.As(err, &refusal) {
		t.Skipf("%v (%s)", err, refusal.Hint)
	}
	state, port := openTemp(t), ports.One()
	lateen := func(t *testing.T, args ...string) {
		t.Helper()
		for {
			out, err := exec.Command(filepath.Join(bin, "lateen"), append(args, "--state", state)...).CombinedOutput()
			if strings.Contains(string(out), "already been triggered within the past second") {
				continue // restarts are told apart by the second
			}
			if err != nil {
				t.Fatalf("lateen %s: %v\n%s", strings.Join(args, " "), err, out)
			}
			return
		}
	}
	lateen(t, "up", "--detach", "--publish", fmt.Sprintf("80=%d", port), "--publish", fmt.Sprintf("443=%d", ports.One()), "../samples/bookinfo")
	defer func() { _ = local.Down(context.WithoutCancel(t.Context()), state) }()
	for _, deployment := range []string{"reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1"} {
		t.Run(deployment, func(t *testing.T) {
			s := beginStorm(fmt.Sprintf("http://127.0.0.1:%d/productpage", port), *rollingRate)
			for range *rollings {
				lateen(t, "rollout", "restart", "deployment/"+deployment)
				lateen(t, "rollout", "status", "deployment/"+deployment, "--timeout=60s")
			}
			asked, failed := s.end()
			t.Logf("%d restarts, %d requests", *rollings, asked)
			if len(failed) > 0 {
				t.Errorf("%d of %d requests failed, the first: %v", len(failed), asked, failed[:min(len(failed), 10)])
			}
			if asked == 0 {
				t.Error("nothing was asked")
			}
		})
	}
}

// A storm is requests at a constant rate, each at its time whatever became of the others.
type storm struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	asked  int
	failed []error
}

// inFlight bounds the requests that a storm has under way.
const inFlight = 512

func beginStorm(url string, rate int) *storm {
	ctx, cancel := context.WithCancel(context.Background())
	s := &storm{stop: cancel}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: inFlight}}
	s.running.Go(func() {
		defer client.CloseIdleConnections()
		slots := make(chan struct{}, inFlight)
		var requests sync.WaitGroup
		defer requests.Wait()
		beat := time.NewTicker(time.Second / time.Duration(rate))
		defer beat.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-beat.C:
			}
			slots <- struct{}{}
			requests.Go(func() {
				defer func() { <-slots }()
				err := askPage(client, url)
				s.mu.Lock()
				defer s.mu.Unlock()
				s.asked++
				if err != nil {
					s.failed = append(s.failed, fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err))
				}
			})
		}
	})
	return s
}

func (s *storm) end() (asked int, failed []error) {
	s.stop()
	s.running.Wait()
	return s.asked, s.failed
}

// askPage wants a product page with all its parts.
func askPage(client *http.Client, url string) error {
	reply, err := client.Get(url)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	switch page := string(text); {
	case err != nil:
		return err
	case reply.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %.200s", reply.Status, page)
	case !strings.Contains(page, "The Comedy of Errors"):
		return fmt.Errorf("no product page: %.200s", page)
	case strings.Contains(page, "Error fetching"), strings.Contains(page, "currently unavailable"):
		return errors.New("the page lacks a part: " + errorLine(page))
	}
	return nil
}

func errorLine(page string) string {
	for line := range strings.SplitSeq(page, "\n") {
		if strings.Contains(line, "Error fetching") || strings.Contains(line, "unavailable") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
