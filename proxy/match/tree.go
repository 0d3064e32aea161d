package match

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	envoycorev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typematcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// A Tree is a compiled matcher of the xDS matcher API: predicates and maps over inputs that
// a request offers, F, with an action A at the end of each way. It is immutable.
type Tree[F, A any] struct {
	root node[F, A]
}

// An Input reads one value of what is matched; ok tells an empty value from none.
type Input[F any] func(*F) (value []byte, ok bool)

// TreeEnv says which inputs and actions a tree may have.
type TreeEnv[F, A any] struct {
	Input  func(*anypb.Any) (Input[F], error)
	Action func(*anypb.Any) (A, error)
	// Share decides by random numbers, as a part of all of them that may change; nil: the
	// default of the part never does.
	Share func(*envoycorev3.RuntimeFractionalPercent) func(random uint64) bool
}

// maxDepth bounds how deep matchers and predicates may stand in each other.
const maxDepth = 32

// NewTree compiles a matcher.
func NewTree[F, A any](m *matcherv3.Matcher, env TreeEnv[F, A]) (*Tree[F, A], error) {
	c := treeCompiler[F, A]{env}
	root, err := c.matcher(m, 0)
	if err != nil {
		return nil, err
	}
	return &Tree[F, A]{root}, nil
}

// Find returns the action at the end of the way that f goes; false: there is none.
func (t *Tree[F, A]) Find(f *F) (A, bool) { return t.root.find(f) }

// A node is a place in the tree.
type node[F, A any] interface {
	find(f *F) (A, bool)
}

type leaf[F, A any] struct{ action A }

func (l leaf[F, A]) find(*F) (A, bool) { return l.action, true }

// A keeper's node does not end the search.
type keeper[F, A any] struct{ node[F, A] }

func (keeper[F, A]) find(*F) (none A, ok bool) { return none, false }

// A listNode asks one predicate after the other.
type listNode[F, A any] struct {
	tests     []test[F]
	nodes     []node[F, A]
	otherwise node[F, A] // nil: nothing
}

func (l *listNode[F, A]) find(f *F) (A, bool) {
	for i, t := range l.tests {
		if !t(f) {
			continue
		}
		if a, ok := l.nodes[i].find(f); ok {
			return a, true
		}
	}
	return instead(l.otherwise, f)
}

func instead[F, A any](n node[F, A], f *F) (none A, ok bool) {
	if n == nil {
		return none, false
	}
	return n.find(f)
}

// A mapNode looks an input up, as a whole or by its longest prefix.
type mapNode[F, A any] struct {
	input     Input[F]
	exact     map[string]node[F, A] // nil: by prefix
	prefixes  []prefixed[F, A]      // longest first
	otherwise node[F, A]
}

type prefixed[F, A any] struct {
	text string
	node node[F, A]
}

func (m *mapNode[F, A]) find(f *F) (A, bool) {
	value, ok := m.input(f)
	if !ok {
		return instead(m.otherwise, f)
	}
	if n := m.exact[string(value)]; n != nil {
		if a, ok := n.find(f); ok {
			return a, true
		}
	}
	for _, p := range m.prefixes {
		if len(value) < len(p.text) || string(value[:len(p.text)]) != p.text {
			continue
		}
		if a, ok := p.node.find(f); ok {
			return a, true
		}
	}
	return instead(m.otherwise, f)
}

// A test is a compiled predicate.
type test[F any] func(*F) bool

type treeCompiler[F, A any] struct{ env TreeEnv[F, A] }

var errDepth = fmt.Errorf("nested deeper than %d", maxDepth)

func (c treeCompiler[F, A]) matcher(m *matcherv3.Matcher, depth int) (node[F, A], error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	var otherwise node[F, A]
	if m.GetOnNoMatch() != nil {
		n, err := c.onMatch(m.GetOnNoMatch(), depth)
		if err != nil {
			return nil, fmt.Errorf("on_no_match: %w", err)
		}
		otherwise = n
	}
	switch t := m.GetMatcherType().(type) {
	case *matcherv3.Matcher_MatcherList_:
		n, err := c.list(t.MatcherList, depth)
		if err != nil {
			return nil, fmt.Errorf("matcher_list: %w", err)
		}
		n.otherwise = otherwise
		return n, nil
	case *matcherv3.Matcher_MatcherTree_:
		n, err := c.tree(t.MatcherTree, depth)
		if err != nil {
			return nil, fmt.Errorf("matcher_tree: %w", err)
		}
		n.otherwise = otherwise
		return n, nil
	}
	if otherwise == nil {
		return nil, errors.New("matcher_type: not set")
	}
	return otherwise, nil
}

func (c treeCompiler[F, A]) onMatch(m *matcherv3.Matcher_OnMatch, depth int) (n node[F, A], err error) {
	switch on := m.GetOnMatch().(type) {
	case *matcherv3.Matcher_OnMatch_Matcher:
		n, err = c.matcher(on.Matcher, depth+1)
	case *matcherv3.Matcher_OnMatch_Action:
		var action A
		if action, err = c.env.Action(on.Action.GetTypedConfig()); err != nil {
			err = fmt.Errorf("action %q: %w", on.Action.GetName(), err)
		}
		n = leaf[F, A]{action}
	default:
		err = errors.New("on_match: not set")
	}
	if err == nil && m.GetKeepMatching() {
		n = keeper[F, A]{n}
	}
	return n, err
}

func (c treeCompiler[F, A]) list(l *matcherv3.Matcher_MatcherList, depth int) (*listNode[F, A], error) {
	out := &listNode[F, A]{}
	for i, m := range l.GetMatchers() {
		t, err := c.predicate(m.GetPredicate(), depth+1)
		if err != nil {
			return nil, fmt.Errorf("matchers[%d].predicate: %w", i, err)
		}
		n, err := c.onMatch(m.GetOnMatch(), depth)
		if err != nil {
			return nil, fmt.Errorf("matchers[%d]: %w", i, err)
		}
		out.tests, out.nodes = append(out.tests, t), append(out.nodes, n)
	}
	return out, nil
}

func (c treeCompiler[F, A]) tree(t *matcherv3.Matcher_MatcherTree, depth int) (*mapNode[F, A], error) {
	input, err := c.input(t.GetInput())
	if err != nil {
		return nil, err
	}
	out := &mapNode[F, A]{input: input}
	switch by := t.GetTreeType().(type) {
	case *matcherv3.Matcher_MatcherTree_ExactMatchMap:
		out.exact, err = c.nodes(by.ExactMatchMap, depth)
		return out, err
	case *matcherv3.Matcher_MatcherTree_PrefixMatchMap:
		nodes, err := c.nodes(by.PrefixMatchMap, depth)
		for text, n := range nodes {
			out.prefixes = append(out.prefixes, prefixed[F, A]{text, n})
		}
		slices.SortFunc(out.prefixes, func(a, b prefixed[F, A]) int { return strings.Compare(b.text, a.text) })
		return out, err
	case *matcherv3.Matcher_MatcherTree_CustomMatch:
		return nil, fmt.Errorf("custom_match %q: not supported", by.CustomMatch.GetName())
	}
	return nil, errors.New("tree_type: not set")
}

func (c treeCompiler[F, A]) nodes(m *matcherv3.Matcher_MatcherTree_MatchMap, depth int) (map[string]node[F, A], error) {
	out := make(map[string]node[F, A], len(m.GetMap()))
	for key, on := range m.GetMap() {
		n, err := c.onMatch(on, depth)
		if err != nil {
			return nil, fmt.Errorf("map[%q]: %w", key, err)
		}
		out[key] = n
	}
	return out, nil
}

func (c treeCompiler[F, A]) input(i *corev3.TypedExtensionConfig) (Input[F], error) {
	input, err := c.env.Input(i.GetTypedConfig())
	if err != nil {
		return nil, fmt.Errorf("input %q: %w", i.GetName(), err)
	}
	return input, nil
}

func (c treeCompiler[F, A]) predicate(p *matcherv3.Matcher_MatcherList_Predicate, depth int) (test[F], error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	switch t := p.GetMatchType().(type) {
	case *matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_:
		return c.single(t.SinglePredicate)
	case *matcherv3.Matcher_MatcherList_Predicate_OrMatcher:
		any, err := c.predicates(t.OrMatcher, depth)
		return func(f *F) bool { return slices.ContainsFunc(any, func(t test[F]) bool { return t(f) }) }, err
	case *matcherv3.Matcher_MatcherList_Predicate_AndMatcher:
		all, err := c.predicates(t.AndMatcher, depth)
		return func(f *F) bool { return !slices.ContainsFunc(all, func(t test[F]) bool { return !t(f) }) }, err
	case *matcherv3.Matcher_MatcherList_Predicate_NotMatcher:
		inner, err := c.predicate(t.NotMatcher, depth+1)
		return func(f *F) bool { return !inner(f) }, err
	}
	return nil, errors.New("match_type: not set")
}

func (c treeCompiler[F, A]) predicates(l *matcherv3.Matcher_MatcherList_Predicate_PredicateList, depth int) ([]test[F], error) {
	var out []test[F]
	for i, p := range l.GetPredicate() {
		t, err := c.predicate(p, depth+1)
		if err != nil {
			return nil, fmt.Errorf("predicate[%d]: %w", i, err)
		}
		out = append(out, t)
	}
	if len(out) < 2 {
		return nil, fmt.Errorf("predicate: want two or more, got %d", len(out))
	}
	return out, nil
}

func (c treeCompiler[F, A]) single(p *matcherv3.Matcher_MatcherList_Predicate_SinglePredicate) (test[F], error) {
	input, err := c.input(p.GetInput())
	if err != nil {
		return nil, err
	}
	switch m := p.GetMatcher().(type) {
	case *matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch:
		text, err := newXDSString(m.ValueMatch)
		if err != nil {
			return nil, fmt.Errorf("value_match: %w", err)
		}
		return func(f *F) bool {
			v, ok := input(f)
			return ok && text.Match(v)
		}, nil
	case *matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch:
		custom, err := newCustom(m.CustomMatch.GetTypedConfig(), c.env.Share)
		if err != nil {
			return nil, fmt.Errorf("custom_match %q: %w", m.CustomMatch.GetName(), err)
		}
		return func(f *F) bool {
			v, ok := input(f)
			return ok && custom(v)
		}, nil
	}
	return nil, errors.New("matcher: not set")
}

// newXDSString compiles the StringMatcher of the xDS types, which is Envoy's on the wire.
func newXDSString(m *matcherv3.StringMatcher) (String, error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		return String{}, err
	}
	var same typematcherv3.StringMatcher
	if err := proto.Unmarshal(raw, &same); err != nil {
		return String{}, err
	}
	return NewString(&same)
}
