package redirect

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An iptables is the rules of one family, as `iptables -A` lines made them: the words of
// each rule by table and chain. It exists for tests, which compare meanings.
type iptables map[string]map[string][][]string

// parseIPTables reads both families: the second begins where a table comes again.
func parseIPTables(t *testing.T, text string) (four, six iptables) {
	t.Helper()
	four, six = iptables{}, iptables{}
	now, table := four, ""
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) < 2:
		case words[0] == "*":
			if table = words[1]; now[table] != nil {
				now = six
			}
			now[table] = map[string][][]string{}
		case words[0] == "-A":
			now[table][words[1]] = append(now[table][words[1]], words[2:])
		case words[0] == "-I":
			at, err := strconv.Atoi(words[2])
			if err != nil {
				t.Fatal(line)
			}
			now[table][words[1]] = slices.Insert(now[table][words[1]], at-1, words[3:])
		case words[0] != "-N":
			t.Fatalf("line %q", line)
		}
	}
	return four, six
}

// run is the decision of the original's rules. Tables come in the kernel's order.
func (tables iptables) run(t *testing.T, p packet) packet {
	for _, table := range []string{"raw", "mangle", "nat"} {
		if tables[table] != nil {
			p, _ = tables.chain(t, tables[table], strings.ToUpper(p.hook), p)
		}
		if p.route == "drop" {
			return p
		}
	}
	return p
}

// chain runs one chain; decided when the packet is done with the table.
func (tables iptables) chain(t *testing.T, chains map[string][][]string, name string, p packet) (_ packet, decided bool) {
	for _, words := range chains[name] {
		target, holds := matchWords(t, words, p)
		if !holds {
			continue
		}
		option := func(name string) uint32 {
			for i, w := range target {
				if w == name {
					number, _, _ := strings.Cut(target[i+1], "/")
					n, err := strconv.ParseUint(number, 10, 32)
					if err != nil {
						t.Fatal(words)
					}
					return uint32(n)
				}
			}
			return 0
		}
		switch target[0] {
		case "RETURN":
			return p, false
		case "ACCEPT":
			return p, true
		case "DROP":
			p.route = "drop"
			return p, true
		case "REDIRECT":
			p.decision = strconv.Itoa(int(option("--to-ports") + option("--to-port")))
			return p, true
		case "TPROXY":
			p.route = "tproxy " + strconv.Itoa(int(option("--on-port")))
			return p, true // its mark means nothing for what is local, see ISTIO_DIVERT below
		case "MARK":
			if name != "ISTIO_DIVERT" { // nobody looks at the mark of what is accepted in here
				p.mark = option("--set-mark")
			}
		case "CONNMARK":
			if target[1] == "--save-mark" {
				p.connMark = p.mark
			} else {
				p.mark = p.connMark
			}
		case "CT":
			if p.zone == 0 {
				p.zone = option("--zone")
			}
		default:
			if chains[target[0]] == nil {
				t.Fatalf("target %q", target)
			}
			if p, decided = tables.chain(t, chains, target[0], p); decided {
				return p, true
			}
		}
	}
	return p, false
}

// matchWords checks the conditions of a rule and returns its target with options.
func matchWords(t *testing.T, words []string, p packet) (target []string, holds bool) {
	module, not := "", false
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "!" {
			not = true
			continue
		}
		if word == "-j" {
			return words[i+1:], true
		}
		i++
		if word == "-m" {
			module = words[i]
			continue
		}
		if matchWord(t, word, words[i], module, p) == not {
			return nil, false
		}
		not = false
	}
	t.Fatalf("no target: %q", words)
	return nil, false
}

func matchWord(t *testing.T, word, value, module string, p packet) bool {
	number := func() uint32 {
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			t.Fatal(word, value)
		}
		return uint32(n)
	}
	switch word {
	case "-p":
		return p.proto == map[string]uint32{"tcp": 6, "udp": 17}[value]
	case "-i":
		return p.iif == value
	case "-o":
		return p.oif == value
	case "-s":
		return netip.MustParsePrefix(value).Masked().Contains(p.src)
	case "-d":
		return netip.MustParsePrefix(value).Masked().Contains(p.dst)
	case "--dport":
		return p.dport == number()
	case "--sport":
		return p.sport == number()
	case "--dports":
		return slices.Contains(strings.Split(value, ","), strconv.Itoa(int(p.dport)))
	case "--uid-owner":
		return p.hook == "output" && p.uid == number()
	case "--gid-owner":
		return p.hook == "output" && p.gid == group(value)
	case "--mark":
		if module == "connmark" {
			return p.connMark == number()
		}
		return p.mark == number()
	case "--ctstate":
		bits := map[string]uint32{"INVALID": ctInvalid, "ESTABLISHED": ctEstablished, "RELATED": ctRelated}
		return slices.ContainsFunc(strings.Split(value, ","), func(s string) bool { return p.state&bits[s] != 0 })
	}
	t.Fatalf("condition %q", word)
	return false
}
