package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// readersKind stands for who may read Secrets among the kinds that differ.
const readersKind = "readers of Secrets"

// How old an answer of the API may be, as in the original; when one that failed is asked for
// again; how long one may take; and how many are kept.
const (
	readerAge     = time.Minute
	readerRetry   = 5 * time.Second
	readerTimeout = 10 * time.Second
	maxReaders    = 10_000
)

// readers asks a Kubernetes API whose proxies may be given keys: only those of accounts that could
// read the Secrets by themselves. Otherwise whoever may start a pod in a namespace would have all
// its keys. It is asked off the push path; answers come with a Snapshot.
type readers struct {
	ask     func(ctx context.Context, account, namespace string) (string, error)
	using   func() map[mesh.Reader]bool // those of proxies that are connected
	log     *slog.Logger
	changed chan struct{}
	wanted  chan struct{}

	mu  sync.Mutex
	all map[mesh.Reader]reading
}

// A reading is what is known of a Reader.
type reading struct {
	answered bool
	refusal  string // "" is that it may
	unused   bool   // when it was last looked for, no proxy was connected
}

func newReaders(ask func(ctx context.Context, account, namespace string) (string, error), using func() map[mesh.Reader]bool, log *slog.Logger) *readers {
	return &readers{ask: ask, using: using, log: log, changed: make(chan struct{}, 1), wanted: make(chan struct{}, 1), all: map[mesh.Reader]reading{}}
}

// Changed has a signal when an answer is another than before; nil has none.
func (r *readers) Changed() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.changed
}

// current are the answers there are; nil for nil.
func (r *readers) current() mesh.Readers {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	answers := mesh.Readers{}
	for who, is := range r.all {
		if is.answered {
			answers[who] = is.refusal
		}
	}
	return answers
}

// want has a Reader looked up that is not known yet.
func (r *readers) want(who mesh.Reader) {
	r.mu.Lock()
	_, known := r.all[who]
	full := len(r.all) >= maxReaders
	if !known && !full {
		r.all[who] = reading{}
	}
	r.mu.Unlock()
	if full && !known {
		r.log.Error("too many accounts ask for keys", "limit", maxReaders, "left_out", who.Account)
	} else if !known {
		signal(r.wanted)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run asks until the context ends.
func (r *readers) run(ctx context.Context) error {
	again := time.NewTimer(readerAge)
	defer again.Stop()
	for {
		fresh := false // only who has no answer yet is looked up
		select {
		case <-ctx.Done():
			return nil
		case <-r.wanted:
			fresh = true
		case <-again.C:
		}
		if !fresh {
			r.forget()
		}
		failed := r.review(ctx, fresh)
		switch {
		case failed:
			again.Reset(readerRetry)
		case !fresh:
			again.Reset(readerAge)
		}
	}
}

// forget leaves those out of which no proxy is connected, twice in a row: one may be about to.
func (r *readers) forget() {
	used := r.using()
	r.mu.Lock()
	defer r.mu.Unlock()
	for who, is := range r.all {
		if is.unused && !used[who] {
			delete(r.all, who)
			signal(r.changed)
			continue
		}
		is.unused = !used[who]
		r.all[who] = is
	}
}

// review asks of each in turn. Where the API gives no answer, the one before counts, and without
// one nothing is read.
func (r *readers) review(ctx context.Context, fresh bool) (failed bool) {
	r.mu.Lock()
	before := maps.Clone(r.all)
	r.mu.Unlock()
	for who, was := range before {
		if fresh && was.answered {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, readerTimeout)
		refusal, err := r.ask(bounded, who.Account, who.Namespace)
		cancel()
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			failed = true
			if was.answered {
				continue
			}
			refusal = err.Error()
		}
		now := reading{answered: true, refusal: refusal, unused: was.unused}
		r.mu.Lock()
		r.all[who] = now
		r.mu.Unlock()
		if now != was {
			signal(r.changed)
		}
	}
	return failed
}

// readersOf are the Readers that the proxies of connections are.
func readersOf(conns []ads.ConnStatus) map[mesh.Reader]bool {
	all := map[mesh.Reader]bool{}
	for _, c := range conns {
		if c.Proxy.Account != "" {
			all[readerOf(c.Proxy)] = true
		}
	}
	return all
}

func readerOf(p *mesh.Proxy) mesh.Reader {
	return mesh.Reader{Account: p.Account, Namespace: p.Namespace}
}

// errUnread is that it is not known yet whether a proxy may have a key.
var errUnread = errors.New("whether its account may read Secrets is being asked")

// secretFor is the secret of a name that a proxy is given; the error says why it is not. What
// authorities there are is no secret.
func secretFor(snap *mesh.Snapshot, p *mesh.Proxy, name string) (*ir.Secret, error) {
	if p.Anonymous {
		return nil, fmt.Errorf("secret %s: proxy %s of namespace %s asks in plain text, where nobody proves who it is: secrets are given on the secure port", name, p.Name, p.Namespace)
	}
	secret, err := compile.Secret(snap, p, name)
	if err != nil || len(secret.Key) == 0 || snap.Readers == nil || p.Account == "" {
		return secret, err
	}
	switch refusal, known := snap.Readers[readerOf(p)]; {
	case !known:
		return nil, fmt.Errorf("secret %s: proxy %s: %w", name, p.Name, errUnread)
	case refusal != "":
		return nil, fmt.Errorf("secret %s: %s, the account of proxy %s, may not list secrets of namespace %s: %s", name, p.Account, p.Name, p.Namespace, refusal)
	}
	return secret, nil
}
