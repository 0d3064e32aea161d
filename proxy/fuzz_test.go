package proxy

import "testing"

// FuzzBootstrap: any text is refused or is a bootstrap, whichever its form.
func FuzzBootstrap(f *testing.F) {
	f.Add("node: {id: a}\nadmin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}")
	f.Add(`{"static_resources": {"clusters": [{"name": "c", "load_assignment": {}}]}, "layered_runtime": {"layers": [{"name": "s", "static_layer": {"a": 1}}]}}`)
	f.Add("&a [*a, *a]")
	f.Add("static_resources: {listeners: [{filter_chains: [{filters: [{typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager}}]}]}]}")
	f.Fuzz(func(t *testing.T, text string) {
		for _, lax := range []bool{false, true} {
			b, err := Load("", text, lax)
			if err == nil && b.Proto == nil {
				t.Fatal("neither a bootstrap nor an error")
			}
		}
	})
}

// FuzzProgramMapping: what is dropped is a range of addresses.
func FuzzProgramMapping(f *testing.F) {
	f.Add("00400000-01a2b000 r-xp 00000000 08:01 1234 /usr/bin/lateen-proxy")
	f.Add("-1-2 r a b c /usr/bin/lateen-proxy")
	f.Fuzz(func(t *testing.T, line string) {
		if start, end, ok := programMapping(line, "/usr/bin/lateen-proxy"); ok && end <= start {
			t.Fatalf("%q: %x-%x", line, start, end)
		}
	})
}
