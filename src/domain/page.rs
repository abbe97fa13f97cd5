//! Pages of a list.

/// Which part of a list is asked for: the `number`th run, counted from 1, of `size` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Page {
    number: i64,
    size: i64,
}

impl Page {
    /// The most rows of a page. It bounds the memory that an answer takes.
    pub const MAX_SIZE: i64 = 1_000;

    /// The rows of a page where nobody says how many.
    pub const DEFAULT_SIZE: i64 = 50;

    /// The highest page number. Beyond any list, and far enough below 2^63 that no product overflows.
    pub const MAX_NUMBER: i64 = 1_000_000_000;

    /// The page; `None` where the number or the size is outside its range.
    #[must_use]
    pub fn new(number: i64, size: i64) -> Option<Self> {
        let fits = (1..=Self::MAX_NUMBER).contains(&number) && (1..=Self::MAX_SIZE).contains(&size);
        fits.then_some(Self { number, size })
    }

    /// Its number, from 1.
    #[must_use]
    pub fn number(self) -> i64 {
        self.number
    }

    /// How many rows it has at most.
    #[must_use]
    pub fn size(self) -> i64 {
        self.size
    }

    /// How many rows lie before it.
    #[must_use]
    pub fn offset(self) -> i64 {
        (self.number - 1) * self.size
    }

    /// The page after it, where a list of `total` rows has one.
    #[must_use]
    pub fn next(self, total: i64) -> Option<Self> {
        if self.number * self.size < total {
            Self::new(self.number + 1, self.size)
        } else {
            None
        }
    }

    /// The page before it.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        Self::new(self.number - 1, self.size)
    }
}

/// How many rows to skip, and how many to take from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Rows to skip.
    pub offset: i64,
    /// Rows to take; `None` for all.
    pub limit: Option<i64>,
}

impl Window {
    /// Everything.
    pub const ALL: Self = Self {
        offset: 0,
        limit: None,
    };
}

impl From<Page> for Window {
    fn from(page: Page) -> Self {
        Self {
            offset: page.offset(),
            limit: Some(page.size()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_no_next() {
        let page = Page::new(2, 5).unwrap();
        assert_eq!(page.offset(), 5);
        assert_eq!(page.next(11), Page::new(3, 5));
        assert_eq!(page.next(10), None);
        assert_eq!(page.next(0), None);
    }

    #[test]
    fn the_first_page_has_no_previous() {
        let page = Page::new(1, 5).unwrap();
        assert_eq!(page.previous(), None);
        assert_eq!(page.next(6).unwrap().previous(), Some(page));
    }

    #[test]
    fn the_farthest_page_does_not_overflow() {
        let page = Page::new(Page::MAX_NUMBER, Page::MAX_SIZE).unwrap();
        assert_eq!(page.next(i64::MAX), None);
        assert!(page.offset() > 0);
    }

    #[test]
    fn numbers_outside_their_range_are_refused() {
        for (number, size) in [
            (0, 1),
            (-1, 1),
            (Page::MAX_NUMBER + 1, 1),
            (1, 0),
            (1, -1),
            (1, Page::MAX_SIZE + 1),
        ] {
            assert_eq!(Page::new(number, size), None);
        }
    }
}
