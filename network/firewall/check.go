package firewall

import (
	"bytes"
	"fmt"
	"slices"

	"gantry/linux/nft"
)

// Check compares the table with the state and describes each difference in a sentence.
func (f *Firewall) Check() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there, err := f.conn.HasTable(f.table.Name)
	if err != nil {
		return nil, err
	}
	if !there {
		return []string{"the table is missing"}, nil
	}
	var problems []string
	for _, s := range f.sets() {
		have, err := f.conn.Elements(f.table.Name, s.Name)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", s.Name, err)
		}
		if !same(have, s.Elements) {
			problems = append(problems, fmt.Sprintf("set %s has %d elements that are not the %d on record", s.Name, len(have), len(s.Elements)))
		}
	}
	rules, err := f.conn.Rules(f.table.Name)
	if err != nil {
		return nil, err
	}
	for _, c := range f.chains() {
		if rules[c.Name] != len(c.Rules) {
			problems = append(problems, fmt.Sprintf("chain %s has %d rules instead of %d", c.Name, rules[c.Name], len(c.Rules)))
		}
	}
	return problems, nil
}

func same(a, b []nft.Element) bool {
	sorted := func(e []nft.Element) []nft.Element {
		return slices.SortedFunc(slices.Values(e), func(a, b nft.Element) int { return bytes.Compare(a.Key, b.Key) })
	}
	return slices.EqualFunc(sorted(a), sorted(b), func(a, b nft.Element) bool {
		return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
	})
}
