package jwtauthn

import (
	"maps"
	"strings"

	"github.com/lateen-mesh/lateen/jwt"
	"github.com/lateen-mesh/lateen/proxy/http"
)

// An exchange is the filter's work for one request.
type exchange struct {
	f       *filter
	s       *http.Stream
	now     uint64         // seconds since 1970
	told    map[string]any // what becomes metadata; nil: nothing
	reroute bool           // what routes may go by has changed
}

// authenticate looks at all tokens that a requirement speaks of, the last first. All must be
// good, so that nobody behind us takes a bad one for one that was verified.
func (x *exchange) authenticate(q *requirement) jwt.Status {
	x.sanitize(q)
	tokens := q.locations.in(&x.s.Request)
	p := q.provider
	if len(tokens) == 0 {
		x.tellFailure(nil, jwt.Missing)
		if q.missing {
			return jwt.OK
		}
		return jwt.Missing
	}
	status := jwt.OK
	for i := len(tokens) - 1; i >= 0; i-- {
		if status, p = x.one(q, p, &tokens[i]); status != jwt.OK {
			x.tellFailure(p, status)
			if !q.missing {
				return status
			}
		}
	}
	if q.failed {
		return jwt.OK
	}
	return status
}

// sanitize removes the headers that a token may set.
func (x *exchange) sanitize(q *requirement) {
	own := x.f.sanitized
	if q.provider != nil {
		own = q.provider.own
	}
	for _, name := range own {
		x.s.Request.Headers.Remove(name)
	}
}

// one looks at one token. It returns whose it is, as far as that is known: p where the
// requirement, or a token before, says so.
func (x *exchange) one(q *requirement, p *provider, c *candidate) (jwt.Status, *provider) {
	var t *jwt.Token
	if q.provider != nil {
		t = x.remembered(p, c.text)
	}
	known := t != nil
	if !known {
		var status jwt.Status
		if t, status = jwt.Parse(c.text); status != jwt.OK {
			return status, p
		}
	}
	if !c.allows(t.Issuer) {
		return jwt.UnknownIssuer, p
	}
	audiences := q.audiences
	if q.provider == nil {
		if p = x.f.issuer(t.Issuer); p == nil {
			return jwt.UnknownIssuer, nil
		}
		audiences = p.audiences
	}
	if status := p.check(t, x.now, audiences); status != jwt.OK {
		return status, p
	}
	if !known {
		keys, status := p.keys.get(x.s)
		if status != jwt.OK {
			return status, p
		}
		if keys != nil { // else the request is only explained
			if status := keys.Verify(t); status != jwt.OK {
				return status, p
			}
			if q.provider != nil {
				p.cache.put(c.text, t, keys)
			}
		}
	}
	x.accept(p, t, c)
	return jwt.OK, p
}

// remembered is a token that was verified before with the keys that are in force.
func (x *exchange) remembered(p *provider, text string) *jwt.Token {
	t := p.cache.get(text, p.keys.current())
	if t == nil {
		x.f.stats.cacheMiss.Inc()
		return nil
	}
	x.f.stats.cacheHit.Inc()
	return t
}

// issuer is the provider of an issuer, or the one that takes all; nil: there is none.
func (f *filter) issuer(name string) *provider {
	if p := f.byIssuer[name]; p != nil {
		return p
	}
	return f.byIssuer[""]
}

// accept passes on what a good token says.
func (x *exchange) accept(p *provider, t *jwt.Token, c *candidate) {
	if p.payloadHeader != "" {
		text := t.PayloadText
		if over := len(text) % 4; p.pad && over > 0 {
			text += strings.Repeat("=", 4-over)
		}
		x.add(p.payloadHeader, text)
	}
	for i := range p.claims {
		if text := p.claims[i].of(t.Payload); text != "" && x.add(p.claims[i].header, text) {
			x.reroute = x.reroute || p.clearRoute
		}
	}
	if !p.forward {
		c.at.remove(x.s)
	}
	if p.headerKey != "" {
		x.note(p.headerKey, t.Header)
	}
	if p.payloadKey != "" {
		x.note(p.payloadKey, normalized(t.Payload, p.spaceDelimited))
		x.reroute = x.reroute || p.clearRoute
	}
}

// add appends a header; one that Envoy keeps as a single field goes on after a comma. A value
// that would end its line is no header: false.
func (x *exchange) add(name, value string) bool {
	if strings.ContainsAny(value, "\r\n\x00") {
		return false
	}
	h := &x.s.Request.Headers
	if before := h.Get(name); before != nil && http.Inline(name) {
		h.Set(name, []byte(string(before)+","+value))
		return true
	}
	h.Add([]byte(name), []byte(value))
	return true
}

// normalized is a payload in which some claims are lists of what spaces divide.
func normalized(payload map[string]any, claims []string) map[string]any {
	if len(claims) == 0 {
		return payload
	}
	out := maps.Clone(payload)
	for _, name := range claims {
		text, _ := payload[name].(string)
		var list []any
		for word := range strings.SplitSeq(text, " ") {
			if word != "" {
				list = append(list, word)
			}
		}
		if list != nil {
			out[name] = list
		}
	}
	return out
}

func (x *exchange) note(key string, v map[string]any) {
	if x.told == nil {
		x.told = map[string]any{}
	}
	x.told[key] = v
}

// tellFailure notes what was wrong for the provider whose token it was, or for the only one.
func (x *exchange) tellFailure(p *provider, status jwt.Status) {
	if p == nil && len(x.f.providers) == 1 {
		for _, only := range x.f.providers {
			p = only
		}
	}
	if p != nil && p.failureKey != "" {
		x.note(p.failureKey, map[string]any{"code": float64(status), "message": status.String()})
	}
}

// tell makes metadata of what was noted, beside what is there of an earlier run.
func (x *exchange) tell() {
	if x.told == nil {
		return
	}
	i := &x.s.Info
	if i.Metadata == nil {
		i.Metadata = map[string]map[string]any{}
	}
	merged := maps.Clone(i.Metadata[Name])
	if merged == nil {
		merged = x.told
	} else {
		maps.Copy(merged, x.told)
	}
	i.Metadata[Name] = merged
}
