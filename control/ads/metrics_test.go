package ads

import (
	"slices"
	"testing"
)

func TestReasons(t *testing.T) {
	for _, c := range []struct {
		change Change
		want   []string
	}{
		{Change{All: true, Kinds: []string{"Pod"}}, []string{"global"}},
		{Change{Subjects: []string{"a.test"}}, []string{"endpoint"}},
		{Change{Subjects: []string{"a.test"}, Kinds: []string{"EndpointSlice", "VirtualService", "Sidecar"}}, []string{"endpoint", "config"}},
		{Change{Kinds: []string{"ServiceEntry", "Secret"}}, []string{"service", "secret"}},
		{Change{}, nil},
	} {
		if got := reasons(c.change); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.change, got, c.want)
		}
	}
}
