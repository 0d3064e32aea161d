package router

import (
	"bytes"
	"math/rand/v2"
	"time"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// shadow sends copies of a request that was wholly received to the clusters that
// mirror it. Nobody waits for them.
func (k *call) shadow() {
	for i := range k.forward.Mirrors {
		m := &k.forward.Mirrors[i]
		if !m.Share.Of(rand.Uint64()) || !k.body.whole() {
			continue
		}
		c := k.shadowCluster(m)
		if c == nil {
			continue
		}
		select {
		case k.r.shadows <- struct{}{}:
		default:
			continue // as many as may be are under way
		}
		k.r.stats.shadowed.Inc()
		go k.r.mirror(c, k.copyRequest(m), bytes.Clone(k.body.bytes()), k.mirrorLimit())
	}
}

// shadowCluster is where a copy goes, nil for nowhere.
func (k *call) shadowCluster(m *route.Mirror) Cluster {
	name := m.Cluster
	if name == "" {
		v, _ := k.s.Request.First(m.ClusterHeader)
		name = string(v)
	}
	if name == "" {
		return nil
	}
	return k.r.deps.Cluster(name)
}

// mirrorLimit is how long a mirrored request may take.
func (k *call) mirrorLimit() time.Duration {
	if k.timeout > 0 {
		return k.timeout
	}
	return defaultMirrorTime
}

// defaultMirrorTime bounds mirrored requests of routes without a timeout.
const defaultMirrorTime = time.Minute

// copyRequest is the request as the mirror gets it.
func (k *call) copyRequest(m *route.Mirror) *http.Request {
	from := &k.s.Request
	to := &http.Request{Method: bytes.Clone(from.Method), Path: bytes.Clone(from.Path), Authority: bytes.Clone(from.Authority),
		Scheme: bytes.Clone(from.Scheme), Protocol: from.Protocol, ContentLength: from.ContentLength, Body: http.NoBody}
	for _, f := range from.Headers.Fields {
		to.Headers.Add(f.Name, f.Value)
	}
	switch {
	case m.HostRewrite != "":
		to.Authority = []byte(m.HostRewrite)
	case !m.NoShadowSuffix:
		to.Authority = shadowHost(to.Authority)
	}
	if k.s.Trace != nil {
		k.s.Trace.Mirror(&to.Headers, m.TraceSampled)
	}
	m.Mutations.ApplyRecord(&to.Headers, nil, format.Record{Info: &k.s.Info, Request: to, Route: k.s.Route})
	to.Headers.Set("x-envoy-internal", []byte("true"))
	if a := k.r.deps.LocalAddress; a.IsValid() {
		value := []byte(a.String())
		if before := to.Headers.Get("x-forwarded-for"); len(before) > 0 {
			value = append(append(before, ','), value...)
		}
		to.Headers.Set("x-forwarded-for", value)
	}
	for i, f := range to.Headers.Fields { // what the stream keeps ends with it
		to.Headers.Fields[i] = http.Field{Name: bytes.Clone(f.Name), Value: bytes.Clone(f.Value)}
	}
	return to
}

// shadowHost puts "-shadow" behind the host and before its port.
func shadowHost(a []byte) []byte {
	i := bytes.LastIndexByte(a, ':')
	if i < 0 || bytes.IndexByte(a[i:], ']') >= 0 {
		i = len(a)
	}
	return append(append(append([]byte(nil), a[:i]...), "-shadow"...), a[i:]...)
}

// mirror sends one copy and drops the answer.
func (r *router) mirror(c Cluster, req *http.Request, body []byte, limit time.Duration) {
	defer func() { <-r.shadows }()
	ep := c.Pick(&lb.Context{})
	if ep == nil {
		return
	}
	pool := c.HTTP(ep, upstream.Wish{Client: req.Protocol, Authority: req.Authority})
	if pool == nil {
		return
	}
	deadline := time.Now().Add(limit)
	x, err := pool.Acquire(nil, deadline)
	if err != nil {
		return
	}
	defer x.Release()
	x.SetDeadline(deadline)
	if x.WriteHead(req, len(body) == 0) != nil || len(body) > 0 && x.WriteBody(body, true) != nil {
		return
	}
	drain(x, c)
}

// drain reads an answer to its end.
func drain(x http.ClientStream, c Cluster) {
	var resp http.Response
	for resp.Status < 200 {
		if x.ReadHead(&resp) != nil {
			return
		}
	}
	c.Stats().CountCode(resp.Status, true)
	for {
		if _, err := resp.Body.Next(); err != nil {
			return
		}
	}
}
