package grpcstats

import (
	"bytes"
	"strings"
	"sync"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// maxMethods bounds the methods of one cluster that have stats of their own. Calls of
// others count for the cluster alone.
const maxMethods = 1024

// A Table holds the stats of calls: "cluster.<name>.<protocol>.…", or below that
// "<service>.<method>.…". It is safe for concurrent use.
type Table struct {
	protocol string
	own      func(path []byte) bool // the method has stats of its own
	undot    bool                   // dots of services are underscores in names
	clusters *stats.Scope

	mu     sync.RWMutex
	byName map[string]*cluster // as many as there are clusters in routes
}

// NewTable returns an empty table of a protocol, "grpc" or "grpc-web"; own says which
// paths are counted each by itself.
func NewTable(scope *stats.Scope, protocol string, own func(path []byte) bool) *Table {
	return &Table{protocol: protocol, own: own, clusters: scope.Root().Scope("cluster"), byName: map[string]*cluster{}}
}

// cluster are the stats of one cluster.
type cluster struct {
	forgotten uint64 // of the scope when they were found
	whole     *Counters
	byPath    map[string]*Counters
}

// Counters are the stats of one method, or of a whole cluster. Each comes into being
// when it is first touched. They are safe for concurrent use.
type Counters struct {
	scope *stats.Scope
	mu    sync.Mutex
	found map[string]*stats.Counter
}

func newCounters(s *stats.Scope) *Counters {
	return &Counters{scope: s, found: map[string]*stats.Counter{}}
}

// Add adds to the counter of that name; 0 does not bring it into being.
func (c *Counters) Add(name string, n uint64) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	found := c.found[name]
	if found == nil {
		found = c.scope.Counter(name)
		c.found[name] = found
	}
	c.mu.Unlock()
	found.Add(n)
}

// codes are the names of the statuses.
var codes = [...]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"}

// Count counts a call that ended with a gRPC status.
func (c *Counters) Count(code int) {
	c.Add("total", 1)
	if code == 0 {
		c.Add("success", 1)
	} else {
		c.Add("failure", 1)
	}
	if code < len(codes) {
		c.Add(codes[code], 1)
	}
}

// Of are the counters of a call. A cluster that went has taken its stats along, and has
// new ones when it is back.
func (t *Table) Of(name string, path []byte) *Counters {
	path, _, _ = bytes.Cut(path, []byte("?"))
	forgotten := t.clusters.Forgotten()
	t.mu.RLock()
	c := t.byName[name]
	var n *Counters
	if c != nil && c.forgotten == forgotten {
		n = t.known(c, path)
	}
	t.mu.RUnlock()
	if n != nil {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c = t.byName[name]; c == nil || c.forgotten != forgotten {
		c = &cluster{forgotten: forgotten, whole: newCounters(t.clusters.Scope(name).Scope(t.protocol)), byPath: map[string]*Counters{}}
		t.byName[name] = c
	}
	if n = t.known(c, path); n != nil {
		return n
	}
	n = newCounters(c.whole.scope.Scope(t.method(path)))
	c.byPath[string(path)] = n
	return n
}

// known are the counters of a path, nil when it is to have some of its own and has not
// yet. t.mu is held.
func (t *Table) known(c *cluster, path []byte) *Counters {
	if !t.own(path) {
		return c.whole
	}
	if n := c.byPath[string(path)]; n != nil || len(c.byPath) < maxMethods {
		return n
	}
	return c.whole
}

// IsMethod reports a path of the form "/service/method".
func IsMethod(path []byte) bool {
	service, method, ok := bytes.Cut(bytes.TrimPrefix(path, []byte("/")), []byte("/"))
	return len(path) > 0 && path[0] == '/' && ok && len(service) > 0 && len(method) > 0 && bytes.IndexByte(method, '/') < 0
}

// method is the part of a stat's name that a path makes.
func (t *Table) method(path []byte) string {
	service, method, _ := strings.Cut(strings.TrimPrefix(string(path), "/"), "/")
	if t.undot {
		service = strings.ReplaceAll(service, ".", "_")
	}
	return service + "." + method
}
