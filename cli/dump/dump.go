// Package dump reads what a proxy tells of its configuration and prints it as tables,
// JSON or YAML: the part of `istioctl proxy-config` that needs no connection.
//
// Two pages of the admin port are read, of our proxy or of a real Envoy: [Parse] reads
// /config_dump, [ParseHosts] /clusters?format=json. What they return makes a [List] for
// each kind of resource, which prints itself:
//
//	d, err := dump.Parse(text)
//	list, err := d.Clusters(dump.ClusterFilter{Port: 9080})
//	err = list.Write(os.Stdout, "short")
//
// Of a control plane there are two: /debug/config_dump, which [Compare] holds against what
// the proxy has, and /debug/syncz, for [ParseSync] and [WriteSync].
//
// # Types that are not known
//
// An extension may be of a type that this program does not have. It is kept as an
// xds.type.v3.TypedStruct, which names the type and holds its fields as they were.
//
// # Limits
//
// A dump has at most [MaxSize] bytes; what is nested deeper than encoding/json reads is
// refused. Nothing here changes what it was given, and all of it can be used by several
// goroutines at once.
package dump

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// MaxSize bounds a dump, in bytes. That of a proxy in a mesh of ten thousand services
// is a quarter of it.
const MaxSize = 256 << 20

// A Dump is the configuration of one proxy. Parts that it lacks are nil.
type Dump struct {
	whole     *adminpb.ConfigDump
	bootstrap *adminpb.BootstrapConfigDump
	clusters  *adminpb.ClustersConfigDump
	listeners *adminpb.ListenersConfigDump
	routes    *adminpb.RoutesConfigDump
	endpoints *adminpb.EndpointsConfigDump
	secrets   *adminpb.SecretsConfigDump
	ecds      *adminpb.EcdsConfigDump
}

// Parse reads /config_dump.
func Parse(text []byte) (*Dump, error) {
	d := &Dump{whole: &adminpb.ConfigDump{}}
	if err := decode(text, d.whole); err != nil {
		return nil, fmt.Errorf("configuration dump: %w", err)
	}
	for i, part := range d.whole.GetConfigs() {
		if err := d.add(part); err != nil {
			return nil, fmt.Errorf("configuration dump: configs[%d]: %w", i, err)
		}
	}
	return d, nil
}

// add takes a part; of one type there may be several, which count together.
func (d *Dump) add(part *anypb.Any) error {
	m, err := part.UnmarshalNew()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *adminpb.BootstrapConfigDump:
		d.bootstrap = merged(d.bootstrap, m)
	case *adminpb.ClustersConfigDump:
		d.clusters = merged(d.clusters, m)
	case *adminpb.ListenersConfigDump:
		d.listeners = merged(d.listeners, m)
	case *adminpb.RoutesConfigDump:
		d.routes = merged(d.routes, m)
	case *adminpb.EndpointsConfigDump:
		d.endpoints = merged(d.endpoints, m)
	case *adminpb.SecretsConfigDump:
		d.secrets = merged(d.secrets, m)
	case *adminpb.EcdsConfigDump:
		d.ecds = merged(d.ecds, m)
	}
	return nil
}

func merged[M interface {
	comparable
	proto.Message
}](before, m M) M {
	var none M
	if before == none {
		return m
	}
	proto.Merge(before, m)
	return before
}

// decode reads a message in the JSON of a proxy's admin port.
func decode(text []byte, m proto.Message) error {
	if len(text) > MaxSize {
		return fmt.Errorf("more than %d bytes", MaxSize)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one JSON value")
	}
	if known(tree) != nil { // only where something had to be changed it is written anew
		changed, err := json.Marshal(tree)
		if err != nil {
			return err
		}
		text = changed
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, m)
}

const typedStruct = "type.googleapis.com/xds.type.v3.TypedStruct"

// known makes a TypedStruct of every Any below a value whose type this program does not
// have, in place, and returns those types.
func known(value any) (unknown []string) {
	switch value := value.(type) {
	case []any:
		for _, v := range value {
			unknown = append(unknown, known(v)...)
		}
	case map[string]any:
		url, ok := value["@type"].(string)
		if strings.HasSuffix(url, ".TypedStruct") || strings.HasSuffix(url, ".Struct") {
			return nil // what is in it is no message
		}
		for _, v := range value {
			unknown = append(unknown, known(v)...)
		}
		if !ok || url == "" || registered(url) {
			return unknown
		}
		fields := map[string]any{}
		for k, v := range value {
			if k != "@type" {
				fields[k] = v
			}
			delete(value, k)
		}
		value["@type"], value["typeUrl"], value["value"] = typedStruct, url, fields
		unknown = append(unknown, url)
	}
	return unknown
}

func registered(url string) bool {
	_, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	return err == nil
}

// typeOf is the type of an extension's configuration, also of one that is not known.
func typeOf(a *anypb.Any) string {
	url := a.GetTypeUrl()
	if a.MessageName().Name() == "TypedStruct" {
		if m, err := a.UnmarshalNew(); err == nil {
			if field := m.ProtoReflect().Descriptor().Fields().ByName("type_url"); field != nil && field.Kind() == protoreflect.StringKind {
				url = m.ProtoReflect().Get(field).String()
			}
		}
	}
	return url[strings.LastIndexByte(url, '/')+1:]
}

// errLacks says that a dump has no part of a kind.
func errLacks(kind string) error { return fmt.Errorf("the configuration dump has no %s", kind) }

// unpack takes resources out of their Anys; those without one are left out.
func unpack[M proto.Message](kind string, bodies []*anypb.Any) ([]M, error) {
	var all []M
	for _, body := range bodies {
		if body == nil {
			continue
		}
		m, err := body.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		one, ok := m.(M)
		if !ok {
			return nil, fmt.Errorf("%s: is of type %s", kind, body.GetTypeUrl())
		}
		all = append(all, one)
	}
	return all, nil
}
