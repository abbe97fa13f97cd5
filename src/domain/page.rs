//! Pagination of lists.

/// A page of a list: its number, counted from 1, and its size in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Page {
    number: i64,
    size: i64,
}

impl Page {
    /// The maximum number of rows, which bounds the memory of a response.
    pub const MAX_SIZE: i64 = 1_000;

    /// The number of rows if the request does not specify one.
    pub const DEFAULT_SIZE: i64 = 50;

    /// The highest page number: beyond any list, and small enough that offsets fit in 64 bits.
    pub const MAX_NUMBER: i64 = 1_000_000_000;

    /// Returns `None` if the number or the size is out of range.
    #[must_use]
    pub fn new(number: i64, size: i64) -> Option<Self> {
        let fits = (1..=Self::MAX_NUMBER).contains(&number) && (1..=Self::MAX_SIZE).contains(&size);
        fits.then_some(Self { number, size })
    }

    /// The page number, counted from 1.
    #[must_use]
    pub fn number(self) -> i64 {
        self.number
    }

    /// The maximum number of rows on the page.
    #[must_use]
    pub fn size(self) -> i64 {
        self.size
    }

    /// The number of rows before the page.
    #[must_use]
    pub fn offset(self) -> i64 {
        (self.number - 1) * self.size
    }

    /// The next page of a list of `total` rows, if there is one.
    #[must_use]
    pub fn next(self, total: i64) -> Option<Self> {
        if self.number * self.size < total {
            Self::new(self.number + 1, self.size)
        } else {
            None
        }
    }

    /// The previous page, if there is one.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        Self::new(self.number - 1, self.size)
    }
}

/// The rows that a statement returns, as its offset and limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The number of rows to skip.
    pub offset: i64,
    /// The maximum number of rows to return; `None` for all.
    pub limit: Option<i64>,
}

impl Window {
    /// All rows.
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
    fn the_last_page_has_no_next_page() {
        let page = Page::new(2, 5).unwrap();
        assert_eq!(page.offset(), 5);
        assert_eq!(page.next(11), Page::new(3, 5));
        assert_eq!(page.next(10), None);
        assert_eq!(page.next(0), None);
    }

    #[test]
    fn the_first_page_has_no_previous_page() {
        let page = Page::new(1, 5).unwrap();
        assert_eq!(page.previous(), None);
        assert_eq!(page.next(6).unwrap().previous(), Some(page));
    }

    #[test]
    fn the_highest_page_does_not_overflow() {
        let page = Page::new(Page::MAX_NUMBER, Page::MAX_SIZE).unwrap();
        assert_eq!(page.next(i64::MAX), None);
        assert!(page.offset() > 0);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
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
