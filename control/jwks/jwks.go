// Package jwks fetches the key sets with which proxies check tokens, and keeps them fresh.
//
// Fetching is off the way on which proxies are served: they get what is there. A set that was
// fetched once stays in force while its place does not answer; without one no token is valid.
package jwks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// Bounds of what is fetched.
const (
	maxSources = 1000    // what is beyond is not fetched, and told
	maxBytes   = 1 << 20 // of one document
	atOnce     = 8
)

// Times of fetching.
const (
	defaultRefresh = 20 * time.Minute
	defaultTimeout = 5 * time.Second
	firstRetry     = time.Second // doubled with each failure, up to Options.Refresh
)

// Options are the settings of a Fetcher.
type Options struct {
	Refresh time.Duration // how often keys are fetched again, about; 0 is 20 minutes
	Client  *http.Client  // nil: NewClient's
	Log     *slog.Logger
}

// A Fetcher has the key sets of the sources that are wanted. It is safe for concurrent use.
type Fetcher struct {
	o       Options
	changed chan struct{}
	running chan struct{} // a place for each fetch at once

	mu      sync.Mutex
	sources map[mesh.KeySource]*source
	dropped int             // of what was wanted last
	waiting chan struct{}   // closed when no source is without an answer; nil if nobody waits
	ctx     context.Context // of Run; nil before
	fetches sync.WaitGroup
}

// A source is one that is wanted.
type source struct {
	keys     string // "" before the first success
	err      error  // of the last try, nil after a success
	tried    bool
	failures int
	timeout  time.Duration
	stop     context.CancelFunc
}

// New returns a Fetcher that fetches once Run runs.
func New(o Options) *Fetcher {
	o.Refresh = cmp.Or(o.Refresh, defaultRefresh)
	if o.Client == nil {
		o.Client = NewClient(nil)
	}
	return &Fetcher{o: o, changed: make(chan struct{}, 1), running: make(chan struct{}, atOnce), sources: map[mesh.KeySource]*source{}}
}

// Run fetches until the context ends.
func (f *Fetcher) Run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	for at, s := range f.sources {
		f.start(at, s)
	}
	f.mu.Unlock()
	<-ctx.Done()
	f.fetches.Wait()
	return nil
}

// Want says which sources are wanted from now on, with how long each may take (0: 5 s). The
// keys of others are forgotten.
func (f *Fetcher) Want(wanted map[mesh.KeySource]time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for at, s := range f.sources {
		if _, ok := wanted[at]; !ok {
			s.end()
			delete(f.sources, at)
		}
	}
	f.dropped = 0
	for at, timeout := range wanted {
		s := f.sources[at]
		switch {
		case s == nil && len(f.sources) >= maxSources:
			f.dropped++
			continue
		case s == nil:
			s = &source{timeout: cmp.Or(timeout, defaultTimeout)}
			f.sources[at] = s
			f.start(at, s)
		}
		s.timeout = cmp.Or(timeout, defaultTimeout)
	}
	if f.dropped > 0 {
		f.o.Log.Error("too many places of keys: tokens of some issuers are all refused", "places", len(wanted), "fetched", maxSources)
	}
	f.tell()
}

// start fetches a source for as long as it is wanted. f.mu is held.
func (f *Fetcher) start(at mesh.KeySource, s *source) {
	if f.ctx == nil || f.ctx.Err() != nil || s.stop != nil {
		return
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(f.ctx)
	f.fetches.Go(func() { f.keep(ctx, at, s) })
}

func (s *source) end() {
	if s.stop != nil {
		s.stop()
	}
}

// keep fetches one source again and again.
func (f *Fetcher) keep(ctx context.Context, at mesh.KeySource, s *source) {
	for {
		select {
		case f.running <- struct{}{}:
		case <-ctx.Done():
			return
		}
		f.mu.Lock()
		timeout := s.timeout
		f.mu.Unlock()
		keys, err := f.fetch(ctx, at, timeout)
		<-f.running
		if ctx.Err() != nil {
			return
		}
		wait := time.NewTimer(f.fetched(at, s, keys, err))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// fetched takes the outcome of one try and says when the next is due: with jitter, so that
// what came at once does not come at once again.
func (f *Fetcher) fetched(at mesh.KeySource, s *source, keys string, err error) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.tried, s.err = true, err
	defer f.tell()
	if err != nil {
		due := f.o.Refresh
		if s.failures < 12 { // beyond that it is longer than any refresh is asked for
			due = min(firstRetry<<s.failures, due)
		}
		s.failures++
		f.o.Log.Warn("keys cannot be fetched", "url", at.URL, "error", err, "kept", s.keys != "", "again", due)
		return jittered(due)
	}
	s.failures = 0
	if keys != s.keys {
		s.keys = keys
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
	return jittered(f.o.Refresh)
}

func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// tell wakes who waits for all sources to have been tried. f.mu is held.
func (f *Fetcher) tell() {
	if f.waiting == nil {
		return
	}
	for _, s := range f.sources {
		if !s.tried {
			return
		}
	}
	close(f.waiting)
	f.waiting = nil
}

// Await waits until every wanted source was tried once, for at most a time.
func (f *Fetcher) Await(ctx context.Context, atMost time.Duration) {
	f.mu.Lock()
	if f.waiting == nil {
		f.waiting = make(chan struct{})
	}
	tried := f.waiting
	f.tell()
	f.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-tried:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Changed has a value when keys have changed since it was last read.
func (f *Fetcher) Changed() <-chan struct{} { return f.changed }

// Keys are the key sets that are there. The map is the caller's.
func (f *Fetcher) Keys() mesh.Keys {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(mesh.Keys, len(f.sources))
	for at, s := range f.sources {
		if s.keys != "" {
			all[at] = s.keys
		}
	}
	return all
}

// Failures are why the last try of sources failed.
func (f *Fetcher) Failures() map[mesh.KeySource]error {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[mesh.KeySource]error{}
	for at, s := range f.sources {
		if s.err != nil {
			all[at] = s.err
		}
	}
	return all
}

func (f *Fetcher) fetch(ctx context.Context, at mesh.KeySource, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return Fetch(ctx, f.o.Client, at)
}

// Fetch gets the key set of a source, once.
func Fetch(ctx context.Context, client *http.Client, at mesh.KeySource) (string, error) {
	address := at.URL
	if at.Discovery {
		text, err := get(ctx, client, address)
		if err != nil {
			return "", err
		}
		if address, err = keysOf(text); err != nil {
			return "", fmt.Errorf("%s: %w", at.URL, err)
		}
	}
	text, err := get(ctx, client, address)
	if err != nil {
		return "", err
	}
	keys, err := keySet(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", address, err)
	}
	return keys, nil
}

func get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err // it names the URL
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxBytes+1))
	if err == nil && len(text) > maxBytes {
		err = errors.New("is larger than 1 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return text, nil
}
