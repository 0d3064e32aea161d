package nametable

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var example = Table{
	"reviews.default.svc.cluster.local": {Addresses: []string{"10.96.0.7", "fd00::7"}, Registry: "Kubernetes", ShortName: "reviews", Namespace: "default"},
	"httpbin.org":                       {Addresses: []string{"240.240.0.1"}, Registry: "External"},
}

func TestTableGoesOverTheWire(t *testing.T) {
	got, err := Unmarshal(Marshal(example))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example, got); diff != "" {
		t.Error(diff)
	}
}

// TestWireForm holds the bytes against the message's definition, field by field:
// {table: {key: "a.b", value: {ips: "1.2.3.4", registry: "External"}}}.
func TestWireForm(t *testing.T) {
	want := "0a1a" + // table, 26 bytes
		"0a03" + "612e62" + // key
		"1213" + // value, 19 bytes
		"0a07" + "312e322e332e34" + // ips
		"1208" + "45787465726e616c" // registry
	got := hex.EncodeToString(Marshal(Table{"a.b": {Addresses: []string{"1.2.3.4"}, Registry: "External"}}))
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(Marshal(example))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := Unmarshal(b)
		if err != nil {
			return
		}
		again, err := Unmarshal(Marshal(table))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table, again); diff != "" {
			t.Error(diff)
		}
	})
}
