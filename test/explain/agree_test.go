package explain

import (
	"flag"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/proxy/listener"
)

// total is how many requests are made in all; one in twenty in a short run.
var total = flag.Int("requests", 10000, "requests to make in all")

// TestExplanationsAgreeWithTheProxy makes random requests, out of what the configurations of
// samples and recordings ask for, to live proxies and to models of the same: cluster, route,
// redirect, answer and refusal are the same.
//
//	go test ./test/explain -v -args -requests 100000
func TestExplanationsAgreeWithTheProxy(t *testing.T) {
	list, total := sources(t), *total
	if testing.Short() {
		total /= 20
	}
	w := newWorld(t)
	var tally tally
	for i := range list {
		n := (i+1)*total/len(list) - i*total/len(list)
		t.Run(list[i].name, func(t *testing.T) { w.compare(t, &list[i], uint64(i), n, &tally) })
	}
	t.Logf("%d requests over %d configurations: %d were sent to upstreams, %d answered by a route, %d found no route, %d moved as bytes, %d were refused or ended, %d denied by a policy; %d disagree",
		tally.asked, len(list), tally.forwarded, tally.answered, tally.lost, tally.moved, tally.ended, tally.denied, tally.wrong)
	if !t.Failed() && (tally.forwarded == 0 || tally.answered == 0 || tally.lost == 0 || tally.moved == 0 || tally.ended == 0 || tally.denied == 0) {
		t.Error("one of the outcomes never came about")
	}
}

type tally struct{ asked, forwarded, answered, lost, moved, ended, denied, wrong int }

// compare asks one proxy and its model.
func (w *world) compare(t *testing.T, s *source, seed uint64, n int, tally *tally) {
	l := w.adapt(t, s)
	m, err := proxy.NewModel(s.node, s.resources)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, r := range m.Refused() {
		t.Fatalf("%s %s: %v", r.TypeURL, r.Name, r.Err)
	}
	l.run(t, s)
	c := &client{conns: map[string]*kept{}}
	defer c.close()
	a := newAsks(seed, l, &s.resources)
	for range n {
		x := a.next()
		got, err := c.send(l, x)
		if err != nil {
			t.Fatalf("%s: %v", x, err)
		}
		tally.asked++
		if why := l.judge(m, x, got, tally); why != "" {
			tally.wrong++
			t.Errorf("%s\n  the proxy: status %d at %q route %q location %q\n  %s", x, got.status, l.clusters[got.at], got.route, got.location, why)
		}
	}
}

// maxChances bounds how often a model is asked for what is left to chance.
const maxChances = 200

// judge holds an answer against the model's decision; "" is agreement.
func (l *live) judge(m *proxy.Model, x *ask, got answer, tally *tally) (why string) {
	for try := range maxChances {
		d := m.Decide(x.Question)
		var chance bool
		if why, chance = l.agrees(d, x, got); why == "" {
			tally.count(d, got)
			return ""
		}
		if !chance || try == maxChances-1 {
			break
		}
	}
	return why
}

func (y *tally) count(d *proxy.Decision, got answer) {
	switch t := d.Request.Target; {
	case got.status == http.StatusForbidden || got.status == http.StatusUnauthorized:
		y.denied++
	case got.status == 0:
		y.ended++
	case got.at != "" && t == nil:
		y.moved++
	case got.at != "":
		y.forwarded++
	case t != nil && t.Route != nil:
		y.answered++
	default:
		y.lost++
	}
}

// part are faults that meet a share of the requests.
var part = regexp.MustCompile(`% of the requests are aborted with (\d+)`)

// agrees compares an answer with one decision; chance says that another time the decision
// may be another one.
func (l *live) agrees(d *proxy.Decision, x *ask, got answer) (why string, chance bool) {
	r := &d.Request
	moves := r.Target == nil && r.Status == 0
	taken := slices.ContainsFunc(d.Connection.Steps, taken)
	if !taken || d.Secured && !x.TLS || !d.Secured && x.TLS && !moves {
		if got.status != 0 {
			return fmt.Sprintf("the model: the connection ends: listener %q chain %q secured %v", d.Listener, d.Chain, d.Secured), false
		}
		return "", false
	}
	if moves {
		return l.moved(d, got)
	}
	asked := func(note string) bool { return strings.HasPrefix(note, "ext_authz: ") }
	if slices.ContainsFunc(r.Notes, asked) && got.status == http.StatusForbidden && got.at == "" {
		return "", false // what a service answers is not known before
	}
	for _, note := range r.Notes {
		if share := part.FindStringSubmatch(note); share != nil && share[1] == strconv.Itoa(got.status) && got.at == "" {
			return "", false
		}
	}
	said := fmt.Sprintf("the model: status %d %s location %q", r.Status, r.Details, r.Location)
	t := r.Target
	if t == nil || t.Route == nil {
		return unless(got.status == r.Status && got.at == "" && got.location == r.Location, said+", no route"), false
	}
	said += fmt.Sprintf(", route %q of %q, cluster %q", t.RouteName(), t.VirtualHost.Name, t.Cluster)
	if got.route != t.RouteName() {
		return said, false
	}
	if t.Route.Forward != nil {
		chance = len(t.Route.Forward.Clusters) > 1
	}
	if d.Picked[t.Cluster] != nil {
		return unless(got.status == 200 && l.clusters[got.at] == t.Cluster, said), chance
	}
	return unless(got.status == r.Status && got.at == "" && got.location == r.Location, said), chance
}

func taken(s listener.Step) bool { return s.Matched }

func unless(ok bool, text string) string {
	if ok {
		return ""
	}
	return text
}

// moved compares a connection whose bytes are moved: the upstream answers, or it ends.
func (l *live) moved(d *proxy.Decision, got answer) (why string, chance bool) {
	for name, ep := range d.Picked {
		if ep != nil && d.Ended == "" {
			return unless(got.at != "" && l.clusters[got.at] == name, "the model: moved to "+name), true
		}
	}
	return unless(got.status == 0, "the model: the connection ends, no upstream"), true
}
