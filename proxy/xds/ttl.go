package xds

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// keep has the resources of a response that came with a time to live end by themselves,
// unless the control plane sends them again, or a heartbeat: the same without a body. It is
// for overrides that must not outlive their server.
func (c *Client) keep(t *typeState, lives []*discoveryv3.Resource) {
	for _, e := range lives {
		for _, res := range t.of(e.GetName()) {
			if res.ttl != nil {
				res.ttl.Stop()
				res.ttl = nil
			}
			if ttl := e.GetTtl(); ttl != nil && res.body != nil {
				res.ttl = time.AfterFunc(max(ttl.AsDuration(), 0), func() { c.post(func() { c.outlive(t, res) }) })
			}
		}
	}
}

// of are the resources of a name, of both kinds of subscriptions.
func (t *typeState) of(name string) (list []*resource) {
	if r := t.named[name]; r != nil {
		list = append(list, r)
	}
	if t.all != nil && t.all.known[name] != nil {
		list = append(list, t.all.known[name])
	}
	return list
}

// outlive removes a resource whose time is over, as if the control plane had said so.
func (c *Client) outlive(t *typeState, r *resource) {
	if r.ttl == nil { // something came meanwhile
		return
	}
	r.ttl = nil
	c.log.Info("xds resource has outlived its time", "type", t.url, "name", r.name)
	if t.named[r.name] == r {
		c.absent(r)
	}
	if t.all == nil || t.all.known[r.name] != r {
		return
	}
	if err := t.all.update(nil, c.forget(t.all, []string{r.name})); err != nil {
		c.log.Warn("xds resource cannot be removed", "type", t.url, "name", r.name, "error", err)
	}
}

func (r *resource) stopTTL() {
	if r.ttl != nil {
		r.ttl.Stop()
	}
}
