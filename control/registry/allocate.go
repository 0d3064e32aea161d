package registry

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// The block 240.240.0.0/16 without addresses that end in 0 or 255.
const (
	autoAddresses = 255 * 255
	autoStep      = 65011 // a prime below autoAddresses, for the second hash
)

// allocateAddresses gives an address of 240.240.0.0/16 to each ServiceEntry host
// that has none, so that DNS capture can tell TCP services apart. The place is a
// hash of namespace and host, as in Istio, so that it stays when other services
// come and go; collisions move on by a second hash. Wildcards and hosts whose
// original address matters (NONE) get none.
func allocateAddresses(services []*Service) {
	taken := map[uint32]bool{}
	for _, s := range services {
		if !s.FromEntry || len(s.Addresses) > 0 || isWildcard(s.Host) || s.Resolution == Passthrough {
			continue
		}
		if slot, ok := freeSlot(s.Namespace+"/"+s.Host, taken); ok {
			taken[slot] = true
			s.AutoAddress = fmt.Sprintf("240.240.%d.%d", slot/255, slot%255)
		}
	}
}

// freeSlot is the place of a key; false when the block is used up.
func freeSlot(key string, taken map[uint32]bool) (uint32, bool) {
	h := fnv.New32a()
	h.Write([]byte(key))
	slot, step := h.Sum32()%autoAddresses, autoStep-h.Sum32()%autoStep
	for range autoAddresses {
		if slot%255 != 0 && !taken[slot] {
			return slot, true
		}
		slot = (slot + step) % autoAddresses
	}
	return 0, false
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*") }
