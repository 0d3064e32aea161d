package runtime

import "github.com/lateen-mesh/lateen/proxy/stats"

// counters tell of snapshots; those before KeepStats are remembered.
type counters struct {
	success, fails, found, missing uint64
	layers                         int64

	sc *stats.Scope // nil: nobody wants them yet
}

func (c *counters) loaded(layers, disks int, failed bool) {
	success, found := &c.success, &c.missing
	name, dir := "load_success", "override_dir_not_exists"
	if failed {
		success, name = &c.fails, "load_error"
	}
	if disks > 1 {
		found, dir = &c.found, "override_dir_exists"
	}
	*success++
	*found++
	c.layers = int64(layers)
	if c.sc != nil {
		c.sc.Counter(name).Inc()
		c.sc.Counter(dir).Inc()
		c.sc.Gauge("num_layers").Set(c.layers)
	}
}

// KeepStats keeps the stats of v in a scope, "runtime.".
func (v *Values) KeepStats(sc *stats.Scope) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.stats
	c.sc = sc
	sc.Gauge("num_layers").Set(c.layers)
	sc.Gauge("deprecated_feature_seen_since_process_start").Set(0)
	sc.Counter("deprecated_feature_use")
	sc.Counter("load_success").Add(c.success)
	sc.Counter("load_error").Add(c.fails)
	sc.Counter("override_dir_exists").Add(c.found)
	sc.Counter("override_dir_not_exists").Add(c.missing)
	sc.Computed("num_keys", func() int64 { return int64(len(*v.current.Load())) })
	sc.Computed("admin_overrides_active", func() int64 {
		if v.overridden() {
			return 1
		}
		return 0
	})
}

func (v *Values) overridden() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.admin >= 0 && len(v.layers[v.admin].values) > 0
}
