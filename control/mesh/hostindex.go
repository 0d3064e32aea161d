package mesh

import (
	"slices"
	"strings"
)

// A HostIndex finds the VirtualServices of a list by host, for callers that ask for
// each of many hosts. It is immutable; the nil index is empty.
type HostIndex struct {
	list     []*VirtualService
	exact    map[string][]int // places in the list of those that name the host
	wildcard []int            // places of those that have a wildcard host
}

// IndexHosts returns the index of a list, which must not be changed afterwards.
func IndexHosts(list []*VirtualService) *HostIndex {
	x := &HostIndex{list: list, exact: map[string][]int{}}
	for i, v := range list {
		for _, h := range v.Spec.Hosts {
			if isWildcard(h) {
				x.wildcard = append(x.wildcard, i)
			} else {
				x.exact[h] = append(x.exact[h], i)
			}
		}
	}
	return x
}

// Candidates returns, in the order of the list, every VirtualService that can have a
// host in common with one of the hosts, and others: those with a wildcard, whether
// or not it covers one of the hosts.
func (x *HostIndex) Candidates(hosts ...string) []*VirtualService {
	if x == nil {
		return nil
	}
	if slices.ContainsFunc(hosts, isWildcard) {
		return x.list
	}
	places := slices.Clone(x.wildcard)
	for _, h := range hosts {
		places = append(places, x.exact[h]...)
	}
	slices.Sort(places)
	var found []*VirtualService
	for _, i := range slices.Compact(places) {
		found = append(found, x.list[i])
	}
	return found
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*") }
