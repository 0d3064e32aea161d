// Package runtime holds values that an operator may change while the proxy runs: the
// layers of the bootstrap's layered_runtime, later ones before earlier ones.
//
// New reads the layers; Follow keeps those up to date that are directories, Replace those
// that a management server sends. What configuration names by a runtime key is compiled into a
// Share, a Switch, a Whole or a Number, each with what holds while no layer has the key.
// Reading one is an atomic load and a look-up; it takes no lock and allocates nothing.
// Every change puts a whole new snapshot in place. A nil *Values has no values.
package runtime

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Values are the values in force and the layers that they come from. They are safe for
// concurrent use.
type Values struct {
	current atomic.Pointer[map[string]value]

	mu     sync.Mutex
	layers []layer
	admin  int // the layer that Modify writes, -1 for none
	stats  *counters
	tell   []func()
}

type layer struct {
	name   string
	values map[string]value
	disk   *disk // nil: no directory
	absent bool  // its directory is not there
}

// New reads the layers; service is the cluster that the node belongs to. A layer of a
// management server (RTDS) is empty until Replace fills it.
func New(config *bootstrapv3.LayeredRuntime, service string) (*Values, error) {
	v := &Values{admin: -1, stats: &counters{}}
	names := map[string]bool{}
	for i, l := range config.GetLayers() {
		if names[l.GetName()] {
			return nil, fmt.Errorf("layers[%d]: Duplicate layer name: %s", i, l.GetName())
		}
		names[l.GetName()] = true
		one := layer{name: l.GetName(), values: map[string]value{}}
		switch from := l.GetLayerSpecifier().(type) {
		case *bootstrapv3.RuntimeLayer_StaticLayer:
			if err := flatten(one.values, "", from.StaticLayer); err != nil {
				return nil, fmt.Errorf("layers[%d] %q: %w", i, l.GetName(), err)
			}
		case *bootstrapv3.RuntimeLayer_AdminLayer_:
			if v.admin >= 0 {
				return nil, errors.New("Too many admin layers specified in LayeredRuntime, at most one may be specified") //nolint:staticcheck // Envoy's words
			}
			v.admin = i
		case *bootstrapv3.RuntimeLayer_DiskLayer_:
			one.disk = newDisk(from.DiskLayer, service)
		case *bootstrapv3.RuntimeLayer_RtdsLayer_:
		default:
			return nil, fmt.Errorf("layers[%d] %q: layer_specifier: not set", i, l.GetName())
		}
		v.layers = append(v.layers, one)
	}
	v.publish() // as Envoy, once for the bootstrap and once when it begins to serve
	v.publish()
	return v, nil
}

// publish puts the layers in force as they are. v.mu is held, or v is not shared yet.
func (v *Values) publish() {
	all := map[string]value{}
	present, disks, failed := 0, 0, false
	for i := range v.layers {
		l := &v.layers[i]
		if l.disk != nil {
			failed = l.load() || failed
			if !l.absent {
				disks++
			}
		}
		if !l.absent {
			present++
			maps.Copy(all, l.values)
		}
	}
	v.current.Store(&all)
	v.stats.loaded(present, disks, failed)
	for _, changed := range v.tell {
		changed()
	}
}

// OnChange has a function called after each change, for what does not read values where it
// needs them. It must neither block nor change values.
func (v *Values) OnChange(changed func()) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tell = append(v.tell, changed)
}

// Layers are the names of all layers and, by key, the text of each layer's value, "" where
// it has none.
func (v *Values) Layers() (names []string, entries map[string][]string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	entries = map[string][]string{}
	for _, l := range v.layers {
		if !l.absent {
			names = append(names, l.name)
		}
	}
	at := 0
	for _, l := range v.layers {
		if l.absent {
			continue
		}
		for key, one := range l.values {
			if entries[key] == nil {
				entries[key] = make([]string, len(names))
			}
			entries[key][at] = one.text
		}
		at++
	}
	return names, entries
}

// Modify overrides values in the admin layer, each written as YAML; an empty one ends an
// override. It fails where there is no such layer.
func (v *Values) Modify(values map[string]string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.admin < 0 {
		return errors.New("No admin layer specified") //nolint:staticcheck // Envoy's words
	}
	written := v.layers[v.admin].values
	for key, text := range values {
		delete(written, key)
		if text != "" {
			written[key] = parse(text)
		}
	}
	v.publish()
	return nil
}

// Check reports what Replace would refuse.
func Check(values *structpb.Struct) error { return flatten(map[string]value{}, "", values) }

// Replace gives a layer other values.
func (v *Values) Replace(name string, values *structpb.Struct) error {
	fresh := map[string]value{}
	if err := flatten(fresh, "", values); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.layers {
		if v.layers[i].name == name {
			v.layers[i].values = fresh
		}
	}
	v.publish()
	return nil
}

// find is what holds for a key; the zero value for nothing.
func (v *Values) find(key string) value {
	if v == nil || key == "" {
		return value{}
	}
	return (*v.current.Load())[key]
}
