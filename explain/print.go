package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Write prints the explanation for people.
func (x *Explanation) Write(w io.Writer) error {
	p := &printer{w: w}
	p.line("%s%s from %s", x.Method+blank(x.Method), x.URL, x.From)
	for i := range x.Hops {
		p.line("")
		p.hop(&x.Hops[i])
	}
	p.line("")
	p.line("%s.", sentence(x.Verdict))
	return p.err
}

func blank(before string) string {
	if before == "" {
		return ""
	}
	return " "
}

func sentence(s string) string {
	if strings.HasPrefix(s, "it ") || strings.HasPrefix(s, "the ") {
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return s
}

// A printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// item is a line of a hop; nothing is printed for an empty value.
func (p *printer) item(label, value string) {
	if value != "" {
		p.line("  %-15s %s", label, value)
	}
}

func (p *printer) hop(h *Hop) {
	p.line("%s of %s", h.Direction, h.Proxy)
	to := h.Destination
	if h.Because != "" {
		to += " (" + h.Because + ")"
	}
	p.item("connection to", to)
	p.item("listener", h.Listener)
	p.chains(h.Chains)
	p.item("routes", h.Table)
	if h.Host != "" {
		p.item("virtual host", h.Host+", by "+h.HostWhy)
	} else {
		p.item("virtual host", h.HostWhy)
	}
	p.routes(h.Routes)
	if h.Action != nil {
		p.item("action", h.Action.Kind)
		for _, s := range h.Action.Settings {
			p.item("", s)
		}
	}
	for _, a := range h.Access {
		p.item("policy", named(a.Name)+a.Reason)
		if a.Origin != nil {
			p.item("", "by "+a.Origin.String())
		}
	}
	for _, n := range h.Notes {
		p.item("note", n)
	}
	for i := range h.Clusters {
		p.cluster(&h.Clusters[i])
	}
	if h.Status != 0 {
		p.item("answer", strings.TrimSpace(fmt.Sprintf("%d %s %s", h.Status, h.Details, h.Location)))
	}
}

// maxMissed bounds how many filter chains are listed that were not taken: gateways and
// inbound listeners have one for each port and host.
const maxMissed = 5

func (p *printer) chains(list []Step) {
	missed := 0
	for _, c := range list {
		if c.Matched {
			p.item("filter chain", named(c.Name)+"yes, "+c.Reason)
			continue
		}
		if missed++; missed <= maxMissed {
			p.item("filter chain", named(c.Name)+"no, "+c.Reason)
		}
	}
	if missed > maxMissed {
		p.item("", fmt.Sprintf("and %d more that do not match", missed-maxMissed))
	}
}

func named(name string) string {
	if name == "" {
		return ""
	}
	return name + ": "
}

func (p *printer) routes(list []Step) {
	for i, r := range list {
		verdict := "no"
		if r.Matched {
			verdict = "yes"
		}
		p.item(fmt.Sprintf("route [%d]", i), named(r.Name)+verdict+", "+r.Reason)
		if r.Origin != nil {
			p.item("", "by "+r.Origin.String())
		}
	}
}

func (p *printer) cluster(c *Cluster) {
	text := c.Name
	if c.Share != 100 {
		text = fmt.Sprintf("%s, %.4g%% of the requests", c.Name, c.Share)
	}
	if c.Missing {
		text += ", which is not there"
	}
	p.item("cluster", text)
	if len(c.Settings) > 0 {
		p.item("", strings.Join(c.Settings, ", "))
	}
	if c.Origin != nil {
		p.item("", "by "+c.Origin.String())
	}
	for _, e := range c.Endpoints {
		line := []string{e.Address + " " + e.Health, fmt.Sprintf("priority %d", e.Priority), e.Locality, e.Workload}
		p.item("endpoint", strings.Join(slices.DeleteFunc(line, func(s string) bool { return s == "" }), ", "))
	}
}
