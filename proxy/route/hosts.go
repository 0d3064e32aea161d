package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// hosts finds the virtual host of an authority: an exact domain before the longest
// "*suffix", before the longest "prefix*", before "*".
type hosts struct {
	exact    map[string]*VirtualHost
	suffixes []wildcard // longest first
	prefixes []wildcard
	any      *VirtualHost
	anyPort  bool   // ignore_port_in_host_matching
	header   string // vhost_header, whose value takes the place of the authority; "" for none
}

// wildcards of one length.
type wildcard struct {
	length int
	hosts  map[string]*VirtualHost
}

// add gives a domain to a virtual host; a domain has one owner in the whole table.
func (h *hosts) add(domain string, vh *VirtualHost) error {
	domain = strings.ToLower(domain)
	switch {
	case domain == "*":
		if h.any != nil {
			return fmt.Errorf(`domain "*" is of virtual host %q already`, h.any.Name)
		}
		h.any = vh
		return nil
	case strings.HasPrefix(domain, "*"):
		return addWildcard(&h.suffixes, domain[1:], domain, vh)
	case strings.HasSuffix(domain, "*"):
		return addWildcard(&h.prefixes, domain[:len(domain)-1], domain, vh)
	}
	return own(h.exact, domain, domain, vh)
}

func addWildcard(list *[]wildcard, text, domain string, vh *VirtualHost) error {
	i := slices.IndexFunc(*list, func(w wildcard) bool { return w.length == len(text) })
	if i < 0 {
		i = len(*list)
		*list = append(*list, wildcard{len(text), map[string]*VirtualHost{}})
	}
	return own((*list)[i].hosts, text, domain, vh)
}

func own(m map[string]*VirtualHost, key, domain string, vh *VirtualHost) error {
	if owner := m[key]; owner != nil {
		return fmt.Errorf("domain %q is of virtual host %q already", domain, owner.Name)
	}
	m[key] = vh
	return nil
}

// order puts longer wildcards first.
func (h *hosts) order() {
	longest := func(a, b wildcard) int { return cmp.Compare(b.length, a.length) }
	slices.SortFunc(h.suffixes, longest)
	slices.SortFunc(h.prefixes, longest)
}

// find returns the virtual host of an authority, nil if there is none.
func (h *hosts) find(authority []byte, r *Recorder) *VirtualHost {
	if h.anyPort {
		authority = authority[:hostLength(authority)]
	}
	var buf [256]byte
	host := lowerInto(buf[:0], authority)
	if vh := h.exact[string(host)]; vh != nil {
		return r.domain(vh, "exact domain ", host, "")
	}
	for _, w := range h.suffixes {
		// A wildcard stands for at least one byte.
		if w.length >= len(host) {
			continue
		}
		if vh := w.hosts[string(host[len(host)-w.length:])]; vh != nil {
			return r.domain(vh, "wildcard domain *", host[len(host)-w.length:], "")
		}
	}
	for _, w := range h.prefixes {
		if w.length >= len(host) {
			continue
		}
		if vh := w.hosts[string(host[:w.length])]; vh != nil {
			return r.domain(vh, "wildcard domain ", host[:w.length], "*")
		}
	}
	if h.any != nil {
		return r.domain(h.any, "wildcard domain *", nil, "")
	}
	return r.domain(nil, "no domain for ", host, "")
}

// hostLength is the length of an authority without its port.
func hostLength(authority []byte) int {
	for i := len(authority) - 1; i >= 0; i-- {
		switch c := authority[i]; {
		case c == ':':
			// What is left must be a name, an IPv4 address or a bracketed IPv6 one.
			if i+1 < len(authority) && i > 0 && (authority[i-1] == ']' || !slices.Contains(authority[:i], ':')) {
				return i
			}
			return len(authority)
		case c < '0' || c > '9':
			return len(authority)
		}
	}
	return len(authority)
}

// lowerInto returns b in lower case: b itself where it is, else copied into buf.
func lowerInto(buf, b []byte) []byte {
	i := 0
	for i < len(b) && (b[i] < 'A' || b[i] > 'Z') {
		i++
	}
	if i == len(b) {
		return b
	}
	for _, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf = append(buf, c)
	}
	return buf
}
