package extauthz

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// An outcome is what a decision comes to.
type outcome uint8

const (
	allowed outcome = iota
	refused
	failed // there is no decision
)

// decision is what a service wants done with a request.
type decision struct {
	outcome   outcome
	request   []edit   // of an allowed request
	remove    []string // headers of it
	setQuery  [][2]string
	dropQuery []string
	response  []edit // of its response
	reply     reply  // in its place; of a failure it may be the zero value
	metadata  map[string]any
	odd       bool // some append_action does not exist
}

// A way is how an edit treats a header that is there. Edits are made in this order.
type way uint8

const (
	add         way = iota // one more
	set                    // the only one, at the end
	extend                 // its value goes on after a comma; nothing without it
	addIfAbsent            // left as it is
	overwrite              // set, but only if it is there
)

// edit is one change of a header.
type edit struct {
	name, value string // name in lower case
	how         way
}

// apply changes h.
func (e *edit) apply(h *http.Headers) {
	there := h.Has(e.name)
	switch {
	case e.how == set, e.how == overwrite && there:
		h.Remove(e.name)
		h.Add([]byte(e.name), []byte(e.value))
	case e.how == add, e.how == addIfAbsent && !there:
		h.Add([]byte(e.name), []byte(e.value))
	case e.how == extend && there:
		i := slices.IndexFunc(h.Fields, func(f http.Field) bool { return http.EqualFold(f.Name, e.name) })
		h.Fields[i].Value = slices.Concat(h.Fields[i].Value, []byte{','}, []byte(e.value))
	}
}

// applyTo changes a request, what is no header field of it included.
func (e *edit) applyTo(r *http.Request) {
	var at *[]byte
	switch e.name {
	case ":authority", "host":
		at = &r.Authority
	case ":path":
		at = &r.Path
	case ":method":
		at = &r.Method
	case ":scheme":
		at = &r.Scheme
	default:
		e.apply(&r.Headers)
		return
	}
	if e.how != addIfAbsent {
		*at = []byte(e.value)
	}
}

// keepMetadata makes what the service tells dynamic metadata of the stream.
func (f *filter) keepMetadata(s *http.Stream, d *decision, took time.Duration) {
	if len(d.metadata) == 0 {
		return
	}
	if !f.takesMetadata {
		f.stats.ignoredMetadata.Inc()
		return
	}
	addMetadata(&s.Info.Metadata, Name, d, took)
}

func addMetadata(all *map[string]map[string]any, namespace string, d *decision, took time.Duration) {
	m := maps.Clone((*all)[namespace])
	if m == nil {
		m = map[string]any{}
	}
	maps.Copy(m, d.metadata)
	if d.outcome == allowed {
		m["ext_authz_duration"] = float64(took.Milliseconds())
	}
	if *all == nil {
		*all = map[string]map[string]any{}
	}
	(*all)[namespace] = m
}

// carryOut does what a decision says.
func (f *filter) carryOut(s *http.Stream, slot http.Slot, d *decision) http.Verdict {
	if d.odd && f.validate {
		return f.invalid(s)
	}
	switch d.outcome {
	case allowed:
		return f.pass(s, slot, d)
	case refused:
		f.count(s, f.stats.denied, "denied")
		if to := f.target(s); to != nil && f.charges {
			to.Stats().CountCode(d.reply.status, true)
		}
		if f.validate && !slices.ContainsFunc(d.reply.headers, edit.broken) || !f.validate {
			return f.refuse(s, f.shortened(d.reply, detailsDenied))
		}
		return f.invalid(s)
	}
	f.count(s, f.stats.failed, "error")
	if f.failOpen {
		f.count(s, f.stats.allowed, "failure_mode_allowed")
		if f.failOpenTold {
			s.Request.Headers.Add([]byte("x-envoy-auth-failure-mode-allowed"), []byte("true"))
		}
		return http.Continue
	}
	r := f.shortened(d.reply, detailsError)
	if r.status == 0 {
		r.status = f.statusOnError
	}
	return f.refuse(s, r)
}

// shortened is an answer of the service as the client gets it.
func (f *filter) shortened(r reply, details string) reply {
	r.details = details
	if f.maxDenied > 0 && len(r.body) > f.maxDenied {
		r.body = r.body[:f.maxDenied]
	}
	return r
}

// invalid answers a request for which the service has ordered what may not be done.
func (f *filter) invalid(s *http.Stream) http.Verdict {
	f.count(s, f.stats.invalid, "invalid")
	return f.refuse(s, reply{status: 500, details: detailsInvalid})
}

// pass lets a request through, changed as the service wants it.
func (f *filter) pass(s *http.Stream, slot http.Slot, d *decision) http.Verdict {
	if f.clears(d) {
		s.ClearRoute()
	}
	to := f.target(s)
	if !f.change(&s.Request, d) {
		return f.invalid(s)
	}
	f.stats.ok.Inc()
	if to != nil {
		to.Stats().Counter(f.stats.prefix + "ok").Inc()
	}
	if len(d.response) > 0 {
		s.SetState(slot, &kept{d.response})
	}
	return http.Continue
}

// clears reports that a decision changes what the route was chosen by.
func (f *filter) clears(d *decision) bool {
	switch {
	case !f.clearRoute:
		return false
	case len(d.setQuery)+len(d.dropQuery) > 0:
		return true
	case len(f.clearFor) == 0:
		return len(d.request)+len(d.remove) > 0
	}
	return slices.ContainsFunc(d.request, func(e edit) bool { return slices.Contains(f.clearFor, e.name) }) ||
		slices.ContainsFunc(d.remove, func(n string) bool { return slices.Contains(f.clearFor, strings.ToLower(n)) })
}

// change makes a decision's changes of a request; false when one may not be made.
func (f *filter) change(r *http.Request, d *decision) bool {
	for i := range d.request {
		e := &d.request[i]
		verdict := f.rules.judge(e.name, e.value, false)
		switch {
		case verdict == fails || f.validate && e.broken():
			return false
		case verdict == permitted:
			e.applyTo(r)
		}
	}
	for _, name := range d.remove {
		name = strings.ToLower(name)
		if name == "" || name[0] == ':' || name == "host" || f.validate && !validName(name) {
			continue
		}
		switch f.rules.judge(name, "", true) {
		case fails:
			return false
		case permitted:
			r.Headers.Remove(name)
		}
	}
	if f.validate && (slices.ContainsFunc(d.response, edit.broken) || !encodedQuery(d.setQuery)) {
		return false
	}
	if len(d.setQuery)+len(d.dropQuery) > 0 {
		r.Path = []byte(changeQuery(string(r.Path), d.setQuery, d.dropQuery))
	}
	return true
}

// changeQuery sets and drops parameters of a path's query, which is then in the order of
// their names.
func changeQuery(path string, set [][2]string, drop []string) string {
	path, query, _ := strings.Cut(path, "?")
	values := map[string][]string{}
	for pair := range strings.SplitSeq(query, "&") {
		if name, value, _ := strings.Cut(pair, "="); pair != "" {
			values[name] = append(values[name], value)
		}
	}
	for _, p := range set {
		values[p[0]] = []string{p[1]}
	}
	for _, name := range drop {
		delete(values, name)
	}
	all := make([]string, 0, len(values))
	for name := range values {
		all = append(all, name)
	}
	sort.Strings(all)
	sign := "?"
	for _, name := range all {
		for _, v := range values[name] {
			path += sign + name + "=" + v
			sign = "&"
		}
	}
	return path
}

// encodedQuery reports that no parameter has a byte that must be percent-encoded.
func encodedQuery(set [][2]string) bool {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._~%+", c)
	}
	for _, p := range set {
		if strings.ContainsFunc(p[0]+p[1], func(c rune) bool { return !plain(c) }) {
			return false
		}
	}
	return true
}

// broken reports that an edit's name or value cannot stand in a head.
func (e edit) broken() bool {
	return !validName(e.name) || strings.ContainsAny(e.value, "\r\n\x00")
}

func validName(name string) bool {
	name = strings.TrimPrefix(name, ":")
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", c)
	})
}
