package spiffe

import "testing"

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		uri  string
		want ID
		ok   bool
	}{
		{"spiffe://cluster.local/ns/default/sa/sleep", ID{"cluster.local", "default", "sleep"}, true},
		{"spiffe://td-1.example/ns/n/sa/a.b", ID{"td-1.example", "n", "a.b"}, true},
		{"", ID{}, false},
		{"https://cluster.local/ns/default/sa/sleep", ID{}, false},
		{"spiffe://cluster.local/ns/default/sa/", ID{}, false},
		{"spiffe:///ns/default/sa/sleep", ID{}, false},
		{"spiffe://cluster.local/ns/default/sa/sleep/more", ID{}, false},
		{"spiffe://cluster.local/sa/default/ns/sleep", ID{}, false},
		{"spiffe://cluster.local/ns/default/sa/a%2fb", ID{}, false},
		{"spiffe://u@cluster.local/ns/default/sa/sleep", ID{}, false},
		{"spiffe://cluster.local/ns/..:x/sa/sleep", ID{}, false},
	} {
		got, err := Parse(tt.uri)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("Parse(%q) = %v, %v; want %v, %v", tt.uri, got, err, tt.want, tt.ok)
		}
		if tt.ok && (got.String() != tt.uri || got.URL().String() != tt.uri) {
			t.Errorf("%q is written as %q and %q", tt.uri, got, got.URL())
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/default/sa/sleep")
	f.Fuzz(func(t *testing.T, uri string) {
		if id, err := Parse(uri); err == nil && (id.String() != uri || id.URL().String() != uri) {
			t.Errorf("%q is written as %q and %q", uri, id, id.URL())
		}
	})
}
