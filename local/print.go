package local

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/lateen-mesh/lateen/control"
)

// Print writes the status for people: tables of parts, pods, ports and proxies, and what is
// wrong.
func (s Status) Print(w io.Writer) {
	t := newTable(w, "PART", "PID", "STATE", "RESTARTS", "AGE")
	for _, p := range s.Parts {
		pid := "-" // between two lives
		if p.PID != 0 {
			pid = strconv.Itoa(p.PID)
		}
		t.row(p.Name, pid, p.State, strconv.Itoa(p.Restarts), age(p.Since))
	}
	t.end()
	s.printPods(w)
	if s.Control == nil {
		fmt.Fprintf(w, "\nthe control plane does not answer: %s\n", s.Problem)
	} else {
		fmt.Fprintln(w)
		s.printPorts(w)
		s.printProxies(w)
		s.printObjects(w)
	}
	if problems := s.problems(); len(problems) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(problems, "\n"))
	}
}

// Print writes where the gateway listens, how to reach the API, and at last that the mesh
// is ready; what is wrong already goes to errs.
func (r Ready) Print(out, errs io.Writer) {
	r.Status.printPorts(out)
	problems := r.Status.problems()
	for _, p := range problems {
		fmt.Fprintln(errs, p)
	}
	if r.Status.NoPods != "" {
		fmt.Fprintf(errs, "warning: no pods can run on this machine: %s\n", r.Status.NoPods)
	}
	ready, all := countPods(r.Status.Pods)
	if ready < all {
		fmt.Fprintf(out, "%d of %d pods ready: lateen status shows them\n", ready, all)
	}
	for _, p := range r.Pages {
		fmt.Fprintf(out, "try: %s\n", p)
	}
	if f := r.Status.Kubeconfig; f != "" {
		fmt.Fprintf(out, "kubectl: export KUBECONFIG=%s\n", f)
	}
	last := fmt.Sprintf("mesh ready in %.2f s", r.Took.Seconds())
	if len(problems) > 0 {
		last += ", with " + count(len(problems), "problem")
	}
	fmt.Fprintln(out, last)
}

// printPods is the table of the pods, in kubectl's columns.
func (s Status) printPods(w io.Writer) {
	if s.NoPods != "" {
		fmt.Fprintf(w, "\nno pods can run on this machine: %s\n", s.NoPods)
	}
	if len(s.Pods) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(w, "NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "AGE", "IP")
	for _, p := range s.Pods {
		t.row(p.Namespace, p.Name, fmt.Sprintf("%d/%d", p.Up, p.Of), p.Status, strconv.Itoa(p.Restarts), age(p.Since), dash(p.Address))
	}
	t.end()
}

// printPorts is the table of the gateways' ports.
func (s Status) printPorts(w io.Writer) {
	if s.Control == nil {
		return
	}
	t := newTable(w, "GATEWAY PORT", "LISTENS ON", "PROTOCOL", "HOSTS", "OBJECT")
	for _, p := range s.Control.Proxies {
		for _, l := range p.Listeners {
			t.row(strconv.Itoa(int(l.Port)), s.listensOn(p, l), dash(l.Protocol), some(l.Hosts), some(l.Objects))
		}
	}
	t.end()
}

// listensOn is where this machine has a port of a gateway.
func (s Status) listensOn(p control.ProxyStatus, l control.ListenerPort) string {
	if Refused(p, l.Port) {
		return "refused"
	}
	host := s.hostPort(l)
	if host == 0 {
		return "-"
	}
	return net.JoinHostPort(l.Address, strconv.Itoa(host))
}

// printProxies is the table of the proxies.
func (s Status) printProxies(w io.Writer) {
	if len(s.Control.Proxies) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(w, "PROXY", "GENERATION", "SYNCED", "REFUSED")
	for _, p := range s.Control.Proxies {
		synced := "no"
		if p.Synced {
			synced = "yes"
		}
		t.row(p.ID, fmt.Sprintf("%d of %d", p.Generation, s.Control.Generation), synced, strconv.Itoa(len(p.Refused)))
	}
	t.end()
}

// printObjects says what of the files is in force.
func (s Status) printObjects(w io.Writer) {
	switch stale := 0; {
	case s.Files > 0:
		fmt.Fprintf(w, "\n%s applied from %s\n", count(s.Objects, "object"), count(s.Files, "file"))
	case len(s.Control.Files) > 0:
		for _, f := range s.Control.Files {
			if f.Stale {
				stale++
			}
		}
		fmt.Fprintf(w, "\n%s from %s, %d of them stale\n", count(s.Control.Objects, "object"), count(len(s.Control.Files), "file"), stale)
	}
}

// problems are what is wrong in files, in the mesh and at proxies, each with its hint.
func (s Status) problems() []string {
	var list []string
	for _, p := range s.Problems {
		list = append(list, hinted(p.Severity.String()+": "+p.Error(), p.Hint))
	}
	for _, p := range s.Pods {
		if p.Problem != "" {
			list = append(list, hinted(fmt.Sprintf("error: Pod %s/%s: %s", p.Namespace, p.Name, p.Problem),
				fmt.Sprintf("see: lateen describe pod -n %s %s", p.Namespace, p.Name)))
		}
	}
	if s.Control == nil {
		return list
	}
	for _, f := range s.Control.Files {
		for _, p := range f.Problems {
			list = append(list, p.String())
		}
		if f.Stale {
			list = append(list, fmt.Sprintf("warning: %s: stale: objects of it are in force as they were before", f.Path))
		}
	}
	for _, p := range s.Control.Problems {
		list = append(list, p.String())
	}
	for _, p := range s.Control.Proxies {
		for _, r := range p.Refused {
			hint := ""
			if strings.Contains(strings.ToLower(r.Error), "address already in use") {
				hint = "another program has the port: lateen up --publish PORT=HOSTPORT"
			}
			list = append(list, hinted(fmt.Sprintf("error: %s refuses %s %s: %s", p.ID, r.Type, r.Resource, r.Error), hint))
		}
	}
	return list
}

func hinted(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + "\nhint: " + hint
}

// A table aligns its columns as kubectl does.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, columns ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)}
	t.row(columns...)
	return t
}

func (t table) row(cells ...string) { fmt.Fprintln(t.w, strings.Join(cells, "\t")) }

func (t table) end() { _ = t.w.Flush() }

// maxListed bounds the names in one cell of a table.
const maxListed = 3

// some are the first of several names, and how many more there are.
func some(names []string) string {
	if len(names) > maxListed {
		return fmt.Sprintf("%s + %d more...", strings.Join(names[:maxListed], ","), len(names)-maxListed)
	}
	return dash(strings.Join(names, ","))
}

// count is "1 file", "2 files".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func age(since time.Time) string { return duration.HumanDuration(time.Since(since)) }

func dash(s string) string { return cmp.Or(s, "-") }
