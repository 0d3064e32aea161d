package jwtauthn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/jwt"
	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A remote is a set of keys at a URI: RemoteJwks.
type remote struct {
	uri     string
	request callout.Request
	timeout time.Duration
	keep    time.Duration // cache_duration
	async   bool          // fetched ahead of requests
	fast    bool          // which the listener does not wait for
	again   time.Duration // failed_refetch_duration
	retries retries

	source *source
	calls  *callout.Client
	ask    func(timeout time.Duration) (*callout.Response, error) // is call
	stats  *counters
	log    *slog.Logger

	mu     sync.Mutex
	flight *flight // the fetch that is under way, nil for none
}

// retries are further attempts, after errors and answers of 500 and more.
type retries struct {
	count     int
	base, top time.Duration // a pause is at random below base, twice that, …, at most top
}

// A flight is one fetch; who needs the keys meanwhile waits for it.
type flight struct {
	done chan struct{}
	keys *jwt.Keys // nil: it failed; set before done is closed
}

// Envoy's defaults, and bounds of our own.
const (
	defaultKeep  = 10 * time.Minute
	defaultAgain = time.Second
	defaultPause = time.Second // base_interval of retry_policy
	aheadOf      = 5 * time.Second
	leastPause   = 100 * time.Millisecond // between two fetches ahead of requests
	maxRetries   = 100
	maxTimeout   = 5 * time.Minute
)

func newRemote(c *jwtv3.RemoteJwks, s *source, st *counters, d Deps) (*remote, error) {
	if err := xds.Only(c, "http_uri", "cache_duration", "async_fetch", "retry_policy"); err != nil {
		return nil, err
	}
	u, err := url.Parse(c.GetHttpUri().GetUri())
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("http_uri.uri: invalid URI: '%s'", c.GetHttpUri().GetUri())
	}
	r := &remote{
		uri: c.GetHttpUri().GetUri(), timeout: min(c.GetHttpUri().GetTimeout().AsDuration(), maxTimeout),
		keep: duration(c.GetCacheDuration(), defaultKeep), async: c.GetAsyncFetch() != nil, fast: c.GetAsyncFetch().GetFastListener(),
		again:  max(duration(c.GetAsyncFetch().GetFailedRefetchDuration(), defaultAgain), leastPause),
		source: s, calls: d.Calls, stats: st, log: d.Log,
		request: callout.Request{Cluster: c.GetHttpUri().GetCluster(), Method: "GET", Authority: u.Host, Path: u.RequestURI(), MaxAnswer: jwt.MaxKeySet},
	}
	if r.timeout <= 0 {
		return nil, errors.New("http_uri.timeout: must be more than 0")
	}
	r.ask = r.call
	r.request.Headers.Add([]byte("user-agent"), []byte("Go-browser"))
	if c.GetRetryPolicy() != nil {
		if r.retries, err = newRetries(c.GetRetryPolicy()); err != nil {
			return nil, fmt.Errorf("retry_policy.%w", err)
		}
	}
	return r, nil
}

func newRetries(c *corev3.RetryPolicy) (out retries, err error) {
	if err := xds.Only(c, "retry_back_off", "num_retries"); err != nil {
		return out, err
	}
	out = retries{count: 1, base: duration(c.GetRetryBackOff().GetBaseInterval(), defaultPause)}
	out.top = duration(c.GetRetryBackOff().GetMaxInterval(), 10*out.base)
	if n := c.GetNumRetries(); n != nil {
		out.count = int(min(n.GetValue(), maxRetries))
	}
	if out.top < out.base {
		return out, errors.New("retry_back_off.max_interval: must be at least base_interval")
	}
	return out, nil
}

// duration is d, or the default when it is not set.
func duration(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

// fetched are the keys that a request needs now; it waits until done for those who fetch them.
func (r *remote) fetched(done <-chan struct{}) (*jwt.Keys, jwt.Status) {
	f := r.begin()
	select {
	case <-f.done:
	case <-done:
	}
	select {
	case <-f.done:
		if f.keys != nil {
			return f.keys, jwt.OK
		}
	default: // the client has left
	}
	return nil, jwt.FetchFailed
}

// begin fetches the keys, unless somebody does already.
func (r *remote) begin() *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight == nil {
		r.flight = &flight{done: make(chan struct{})}
		go r.fly(r.flight)
	}
	return r.flight
}

func (r *remote) fly(f *flight) {
	keys, err := r.fetch()
	if err != nil {
		r.stats.fetchFailed.Inc()
		r.log.Warn("keys of a JWT provider could not be fetched", "uri", r.uri, "error", err)
	} else {
		r.stats.fetched.Inc()
		held := &keyring{keys: keys}
		if !r.async {
			held.expires = time.Now().Add(r.keep)
		}
		r.source.held.Store(held)
	}
	f.keys = keys
	r.mu.Lock()
	r.flight = nil
	r.mu.Unlock()
	close(f.done)
}

// fetch asks for the keys, again where that is allowed and helps.
func (r *remote) fetch() (*jwt.Keys, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.timeout)
	defer cancel()
	pause := r.retries.base
	for n, left := 0, r.timeout; ; n++ {
		answer, err := r.ask(left)
		switch {
		case (err != nil || answer.Status >= 500) && n < r.retries.count && wait(ctx, pause):
			pause = min(2*pause, r.retries.top)
			until, _ := ctx.Deadline()
			left = max(time.Until(until), time.Millisecond)
			continue
		case err != nil:
			return nil, err
		case answer.Status != 200:
			return nil, fmt.Errorf("answered with status %d", answer.Status)
		}
		return jwt.ParseKeys(answer.Body)
	}
}

// call asks the cluster.
func (r *remote) call(timeout time.Duration) (*callout.Response, error) {
	request := r.request
	request.Timeout = timeout
	return r.calls.Do(callout.Within(context.Background()), &request)
}

// wait pauses for a random part of d; false: ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		d = rand.N(d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// run fetches the keys ahead of requests, again and again until stop; those fetched last stay
// in force until others have come. warm is closed after the first attempt.
func (r *remote) run(stop <-chan struct{}) <-chan struct{} {
	if !r.async {
		return nil
	}
	first := make(chan struct{})
	go func() {
		for once := sync.OnceFunc(func() { close(first) }); ; {
			f := r.begin()
			select {
			case <-f.done:
			case <-stop:
				return
			}
			once()
			pause := r.again
			if f.keys != nil {
				pause = r.refetch()
			}
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-stop:
				t.Stop()
				return
			}
		}
	}()
	if r.fast {
		return nil
	}
	return first
}

// refetch is how long fetched keys are left alone: a little less than they are good for.
func (r *remote) refetch() time.Duration {
	if r.keep > aheadOf {
		return max(r.keep-aheadOf, leastPause)
	}
	return max(r.keep, leastPause)
}
