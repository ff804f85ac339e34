package docker

import (
	"fmt"
	"strings"
)

const barWidth = 50 // characters between the brackets

// bar draws the progress as docker's daemon did for its older clients: "[====>     ]  1.2MB/3.4MB".
func (p *Progress) bar() string {
	if p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	current := p.amount(p.Current)
	if p.Total <= 0 || p.Current > p.Total {
		return current
	}
	filled := int(float64(p.Current) / float64(p.Total) * barWidth)
	drawn := "[" + strings.Repeat("=", filled) + ">" + strings.Repeat(" ", barWidth-filled) + "] "
	if p.HideCounts {
		return drawn
	}
	return fmt.Sprintf("%s%8s/%s", drawn, current, p.amount(p.Total))
}

// amount is a count in the progress's units; bytes are shown with decimal prefixes and four digits.
func (p *Progress) amount(n int64) string {
	if p.Units != "" {
		return fmt.Sprintf("%d %s", n, p.Units)
	}
	value := float64(n)
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if value < 1000 {
			return fmt.Sprintf("%.4g%s", value, unit)
		}
		value /= 1000
	}
	return fmt.Sprintf("%.4gTB", value)
}
