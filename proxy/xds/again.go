package xds

import (
	"slices"
	"time"
)

// How long a resource that time may cure is left alone.
const (
	againFirst = time.Second
	againMax   = 30 * time.Second
)

// Again wraps a refusal that time may cure, as of a port that another program still
// holds. The resource is refused as any other and decoded again after a while, until it
// is accepted, replaced or removed. It is for resources of SubscribeAll.
func Again(err error) error { return &curable{err} }

type curable struct{ error }

// Unwrap returns the refusal.
func (c *curable) Unwrap() error { return c.error }

// arrange has resources that time may cure decoded again when their time has come.
func (c *Client) arrange(t *typeState) {
	w := t.all
	w.stopAgain()
	for _, r := range w.known {
		if r.curable {
			w.again = time.AfterFunc(w.wait, func() { c.post(func() { c.decodeAgain(t) }) })
			return
		}
	}
}

func (w *wildcard) stopAgain() {
	if w.again != nil {
		w.again.Stop()
		w.again = nil
	}
}

// decodeAgain tries what time may have cured.
func (c *Client) decodeAgain(t *typeState) {
	w := t.all
	if w.again == nil { // a response came meanwhile
		return
	}
	var cured []decoded
	var names []string
	for _, r := range w.known {
		if !r.curable {
			continue
		}
		v, err := w.decode(r.name, r.failed)
		c.mu.Lock()
		if err != nil {
			r.refuse(r.failedVersion, r.failed, err)
		} else {
			r.accept(r.failedVersion, r.failed)
			cured, names = append(cured, decoded{r, v}), append(names, r.name)
		}
		c.mu.Unlock()
	}
	if len(cured) > 0 {
		slices.Sort(names)
		c.log.Info("xds resources accepted that were refused before", "type", t.url, "names", names)
		c.cure(t, w.update(cured, nil))
	}
	w.wait = min(2*w.wait, againMax)
	c.arrange(t)
}

// cure takes a NACK back when nothing of the type is refused any more: the response is
// acknowledged once more, now without an error.
func (c *Client) cure(t *typeState, err error) {
	if err != nil {
		c.log.Warn("xds resource refused", "type", t.url, "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, all := range []map[string]*resource{t.all.known, t.named} {
		for _, r := range all {
			if r.state == stateNacked {
				return
			}
		}
	}
	t.lastError, t.lastErrorAt = "", time.Time{}
	if t.nonce != "" {
		t.version = t.offered
		t.acks = append(t.acks, ack{nonce: t.nonce})
	}
}
