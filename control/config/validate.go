package config

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

// check runs the rules of a kind, those of Istio's webhook: the same objects are
// accepted. Fields have their full path. blank are the places where an empty value is
// written, of which the object says no more than of those where nothing is.
func check(schema *kindSchema, o *Config, blank map[string]bool) []Problem {
	r := &report{blank: blank}
	root := place{r: r}
	if instead, ok := withoutEffect()[schema.kind]; ok {
		root.notYet("is read but has no effect yet: %s", instead)
	}
	validateMetadata(root.field("metadata"), schema, o)
	if schema.message != nil {
		root = root.field("spec")
	}
	schema.validate(root, o)
	return r.problems
}

// A report collects the findings about one object.
type report struct {
	problems []Problem
	blank    map[string]bool
}

// A place is a field of the object under validation; findings are told to it.
type place struct {
	r    *report
	path string
}

func (p place) field(name string) place {
	if p.path == "" {
		return place{p.r, name}
	}
	return place{p.r, p.path + "." + name}
}

func (p place) index(i int) place        { return place{p.r, p.path + "[" + strconv.Itoa(i) + "]"} }
func (p place) key(k string) place       { return place{p.r, p.path + "[" + strconv.Quote(k) + "]"} }
func (p place) at(f string, i int) place { return p.field(f).index(i) }

func (p place) errorf(format string, args ...any) { p.add(Error, "", format, args...) }
func (p place) warnf(format string, args ...any)  { p.add(Warning, "", format, args...) }

func (p place) add(s Severity, hint, format string, args ...any) {
	if len(p.r.problems) < maxProblems {
		p.r.problems = append(p.r.problems, Problem{Field: p.path, Severity: s, Hint: hint, Message: fmt.Sprintf(format, args...)})
	}
}

// notYet warns of what is right and this version does not do.
func (p place) notYet(format string, args ...any) {
	if len(p.r.problems) < maxProblems {
		p.r.problems = append(p.r.problems, Problem{Field: p.path, Severity: Warning, Message: fmt.Sprintf(format, args...), Aside: true})
	}
}

// notBlank refuses fields that may be left out but not be written as empty.
func (p place) notBlank(fields ...string) {
	for _, f := range fields {
		if at := p.field(f); p.r.blank[fieldID(at.path)] {
			at.errorf("must not be empty")
		}
	}
}

// wrong reports err, if there is one, as an error of the place.
func (p place) wrong(err error) {
	if err != nil {
		p.errorf("%v", err)
	}
}

// Rules that several kinds share. Each returns what is wrong with a value.

var (
	dnsLabel      = regexp.MustCompile(`^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$`)
	wildcardLabel = regexp.MustCompile(`^(?:\*|(?:\*|\*-)?[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?)$`)
	labelName     = regexp.MustCompile(`^[a-zA-Z0-9](?:[-a-zA-Z0-9_.]*[a-zA-Z0-9])?$`)
)

func isDNSLabel(s string) bool      { return len(s) <= 63 && dnsLabel.MatchString(s) }
func isWildcardLabel(s string) bool { return len(s) <= 63 && wildcardLabel.MatchString(s) }
func isIP(s string) bool            { _, err := netip.ParseAddr(s); return err == nil }

func port(number int64) error {
	if number < 1 || number > 65535 {
		return fmt.Errorf("must be 1–65535, got %d", number)
	}
	return nil
}

func percent(v int32) error {
	if v < 0 || v > 100 {
		return fmt.Errorf("must be 0–100, got %d", v)
	}
	return nil
}

func domainLength(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("must not be empty")
	case len(name) > 255:
		return fmt.Errorf("is longer than 255 characters")
	}
	return nil
}

// domainLabels checks a name without wildcards. A trailing dot is allowed.
func domainLabels(domain string) error {
	labels := strings.Split(domain, ".")
	if top := labels[len(labels)-1]; top != "" {
		if _, err := strconv.Atoi(top); err == nil {
			return fmt.Errorf("%q is not a domain name: the last part is a number", shorten(domain))
		}
	}
	for i, l := range labels {
		if i == len(labels)-1 && l == "" {
			break
		}
		if !isDNSLabel(l) {
			return fmt.Errorf("%q is not a domain name: part %q", shorten(domain), shorten(l))
		}
	}
	return nil
}

func fqdn(name string) error {
	if err := domainLength(name); err != nil {
		return err
	}
	return domainLabels(name)
}

// wildcardDomain allows * as the whole first label or as its beginning.
func wildcardDomain(name string) error {
	if err := domainLength(name); err != nil {
		return err
	}
	first, rest, more := strings.Cut(name, ".")
	if !isWildcardLabel(first) {
		return fmt.Errorf("%q is not a domain name: part %q", shorten(name), shorten(first))
	}
	if more {
		return domainLabels(rest)
	}
	return nil
}

// partialWildcard refuses *foo.com, which only some kinds allow.
func partialWildcard(host string) error {
	if strings.Contains(host, "*") && host != "*" && !strings.HasPrefix(host, "*.") {
		return fmt.Errorf("partial wildcard %q is not allowed", shorten(host))
	}
	return nil
}

func ipOrSubnet(s string) error {
	if strings.Contains(s, "/") {
		if _, err := netip.ParsePrefix(s); err != nil {
			return fmt.Errorf("%q is not a CIDR block", shorten(s))
		}
		return nil
	}
	return ipAddress(s)
}

func ipAddress(s string) error {
	if !isIP(s) {
		return fmt.Errorf("%q is not an IP address", shorten(s))
	}
	return nil
}

const unixScheme = "unix://"

// unixPath checks what follows unix://: an absolute path or an abstract name.
func unixPath(p string) error {
	if strings.HasPrefix(p, "@") {
		return nil
	}
	if !path.IsAbs(p) || strings.HasSuffix(p, "/") {
		return fmt.Errorf("%q is not an absolute path to a socket nor an abstract name (@name)", shorten(p))
	}
	return nil
}

// positive checks durations of which the proxies know milliseconds at best.
func positive(d *durationpb.Duration) error {
	if d == nil {
		return nil
	}
	switch v := d.AsDuration(); {
	case v < time.Millisecond:
		return fmt.Errorf("must be at least 1ms, got %v", v)
	case v%time.Millisecond != 0:
		return fmt.Errorf("must be whole milliseconds, got %v", v)
	}
	return nil
}

// zeroOrPositive is for timeouts that 0s switches off.
func zeroOrPositive(d *durationpb.Duration) error {
	if d != nil && d.AsDuration() == 0 {
		return nil
	}
	return positive(d)
}

func portName(name string) error {
	if !isDNSLabel(name) {
		return fmt.Errorf("%q is not a port name: letters, digits and - are allowed", shorten(name))
	}
	return nil
}

// protocolClass is what a protocol name means for routing.
type protocolClass uint8

const (
	unknownProtocol protocolClass = iota
	httpProtocol
	tlsProtocol // HTTPS and TLS: routed by SNI
	tcpProtocol
	udpProtocol
)

// classify reads a protocol name as Istio does, in any case.
func classify(protocol string) protocolClass {
	switch strings.ToLower(protocol) {
	case "http", "http2", "grpc", "grpc-web":
		return httpProtocol
	case "https", "tls":
		return tlsProtocol
	case "tcp", "mongo", "redis", "mysql":
		return tcpProtocol
	case "udp":
		return udpProtocol
	}
	return unknownProtocol
}

var protocolNames = []string{"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS", "TCP", "MONGO", "REDIS", "MYSQL", "UDP"}

// protocol checks an optional protocol name; unset means detection.
func (p place) protocol(name string) {
	if name != "" && classify(name) == unknownProtocol {
		p.add(Error, didYouMean(name, protocolNames), "unknown protocol %q", shorten(name))
	}
}

// maxRegex bounds expressions. Envoy limits the compiled program, which is never
// shorter than the text.
const maxRegex = 1024

func re2(expr string) error {
	switch {
	case expr == "":
		return fmt.Errorf("must not be empty")
	case len(expr) > maxRegex:
		return fmt.Errorf("is longer than %d characters", maxRegex)
	}
	if _, err := regexp.Compile(expr); err != nil {
		return fmt.Errorf("is not an RE2 expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

// labels checks a label set.
func (p place) labels(set map[string]string) {
	for _, k := range sortedKeys(set) {
		at := p.key(k)
		prefix, name, prefixed := strings.Cut(k, "/")
		if !prefixed {
			prefix, name = "", k
		}
		if prefixed && (domainLength(prefix) != nil || domainLabels(prefix) != nil) || len(name) > 63 || !labelName.MatchString(name) {
			at.errorf("%q is not a label name", shorten(k))
		}
		if v := set[k]; len(v) > 63 || v != "" && !labelName.MatchString(v) {
			at.errorf("%q is not a label value", shorten(v))
		}
	}
}

// selector checks the labels that select workloads. whole says what an empty
// selector applies to.
func (p place) selector(set map[string]string, field string) {
	for _, k := range sortedKeys(set) {
		at := p.field(field).key(k)
		if k == "" {
			at.errorf("the label name must not be empty")
		}
		if strings.Contains(k, "*") || strings.Contains(set[k], "*") {
			at.errorf("wildcards are not supported in a selector")
		}
		if len(set[k]) > 63 {
			at.errorf("is longer than a label may be: 63 characters")
		}
	}
	if len(set) == 0 {
		p.warnf("selects by no label: it applies to every workload of the namespace")
	}
}

// exportTo checks to which namespaces an object is visible.
func (p place) exportTo(namespace string, to []string, nobody bool) {
	seen := map[string]bool{}
	for i, e := range to {
		at, ns := p.field("exportTo").index(i), e
		if e == "." {
			ns = namespace
		}
		switch {
		case seen[ns]:
			at.errorf("duplicate entry %q", shorten(e))
		case e == "~" && !nobody:
			at.errorf("~ (nobody) is allowed for ServiceEntry only")
		case e != "~" && e != "*" && e != "." && !isDNSLabel(e):
			at.errorf("%q is not a namespace, \".\" or \"*\"", shorten(e))
		case (e == "*" || e == "~") && len(to) > 1:
			at.errorf("%q cannot be combined with other entries", e)
		}
		seen[ns] = true
	}
}
